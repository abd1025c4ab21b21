"""Generates a client in Go from the document of a daemon. Arguments: the socket, the directory."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import openapi_generator_cli

from connection import document

SOCKET, DIRECTORY = sys.argv[1:]
(Path(DIRECTORY) / "openapi.json").write_text(json.dumps(document(SOCKET)))
# Java has a root of its own, with the directory in it.
program = Path(openapi_generator_cli.__file__).parent / "openapi-generator.jar"
shutil.copy(program, DIRECTORY)
names = "packageName=lbclient,enumClassPrefix=true,withGoMod=false"
subprocess.run(
    ["java", "-jar", f"{DIRECTORY}/openapi-generator.jar", "generate", "-g", "go", "-i", f"{DIRECTORY}/openapi.json",
     "-o", f"{DIRECTORY}/lbclient", f"--additional-properties={names}", "--global-property=apiTests=false,modelTests=false"],
    check=True, stdout=subprocess.DEVNULL,
)
