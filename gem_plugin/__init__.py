"""Better cryo-EM maps from finished refinements: 3D Gaussians fitted to particle images.

Importing this package touches no GPU and starts no thread.
"""

__version__ = "0.1.0"
