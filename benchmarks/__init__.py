"""Scripts that measure the package; how they are run and imported: see `bga_mner.examples`."""
