"""The networks: one encoder for images and videos, the pixel decoder, and the student around them."""
