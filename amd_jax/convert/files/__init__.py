"""What bytes hold: safetensors, PyTorch's pickles, folders, and the JSON files beside weights."""
