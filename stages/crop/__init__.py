"""crop: image sizes -> candidate boxes, filtered by IoU."""
