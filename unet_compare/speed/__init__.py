"""Times the two twins side by side: `unet bench`, and `python -m unet_compare.speed`."""
