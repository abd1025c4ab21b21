//! The configuration file: raw text to checked desired state, every error at once with its place.
