//! Rings: the order in which backends own slots.
