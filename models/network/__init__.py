"""The recurrent network, the blend with neighbours, and text vectors (torch)."""
