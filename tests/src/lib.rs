//! Harness for the test lanes that need root.
