"""The image builder: manifest, lock, fetch, tree, archive, outputs; and the server that offers them."""
