"""Dynamic Filter Networks (De Brabandere, Jia, Tuytelaars, Van Gool, NIPS 2016) in JAX."""
