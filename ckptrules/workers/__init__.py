"""Does work in threads, in processes of this machine, and in workers of Dask."""
