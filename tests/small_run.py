"A run whose untrained generator is measured in seconds."

from wysiwyg.config import override, tiny

RUN = override(
    tiny(resolution=64),
    **{
        'backbone.channel_base': 128,
        'backbone.channel_max': 16,
        'backbone.plane_channels': 4,
        'backbone.plane_hidden': 4,
        'proposal.width': 8,
    },
)
