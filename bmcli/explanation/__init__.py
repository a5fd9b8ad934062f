"""Why a trained network answers as it does: by its inputs, its gradients and its layers."""
