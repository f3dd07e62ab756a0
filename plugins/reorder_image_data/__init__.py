"""Images from folders, and from torchvision and timm by name, through timm's loaders and transforms."""
