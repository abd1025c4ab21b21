"""Generates a client from the document of a daemon. Arguments: the socket, the directory."""

import json
import sys
from pathlib import Path

from openapi_python_client import generate
from openapi_python_client.config import Config, ConfigFile, MetaType

from connection import document

SOCKET, DIRECTORY = sys.argv[1:]
source = Path(DIRECTORY) / "openapi.json"
source.write_text(json.dumps(document(SOCKET)))
# Answers that are no JSON are texts; the last word is for a formatter that a test needs not.
texts = {"application/x-ndjson": "text/plain", "application/toml": "text/plain"}
config = ConfigFile(package_name_override="lbclient", content_type_overrides=texts, post_hooks=[])
out = Path(DIRECTORY) / "lbclient"
config = Config.from_sources(config, MetaType.NONE, source, "utf-8", True, out)
errors = [f"{error.level}: {error.header}: {error.detail}" for error in generate(config=config)]
assert not errors, "\n".join(errors)
