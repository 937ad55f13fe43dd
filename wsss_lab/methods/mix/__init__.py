"""Mix your own: techniques of four papers on one common base, switched on by settings alone."""
