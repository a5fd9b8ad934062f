"""Layers that saved networks with traces have."""


def list_layers():
    """Import and list them."""
    from seismology.trace_encoder import TraceEncoder

    return (TraceEncoder,)
