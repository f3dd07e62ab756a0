"""Images with boxes, masks, captions, questions or several classes, from the files that the field keeps them in."""
