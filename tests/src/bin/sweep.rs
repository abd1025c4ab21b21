//! Removes what tests that were killed have left: namespaces, directories, control groups. `cargo xtask test` calls it after Ctrl-C.

fn main() {
    lb_tests::lane::sweep();
}
