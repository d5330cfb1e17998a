"""Networks of the whole family, for the property tests."""

from hypothesis import strategies as st

from unet_core import UNetConfig


@st.composite
def configs(draw, most=64, levels=6):
    """Any config, with widths up to `most` and up to `levels` levels."""
    widths = st.integers(1, most)
    features = tuple(draw(st.lists(widths, min_size=2, max_size=levels)))
    decoder = st.none() | st.lists(widths, min_size=len(features) - 1, max_size=len(features) - 1).map(tuple)
    upsampling = draw(st.sampled_from(["bilinear", "transposed", "nearest"]))
    return UNetConfig(
        in_channels=draw(widths),
        out_channels=draw(widths),
        features=features,
        upsampling=upsampling,
        align_corners=draw(st.booleans()),
        skip_first=draw(st.booleans()),
        fit=draw(st.sampled_from(["resize", "pad"])),
        conv_bias=draw(st.booleans()),
        output=draw(st.sampled_from(["sigmoid", "softmax", "logits"])),
        decoder_features=draw(decoder),
        middle_features=draw(decoder),
        upsampled_features=draw(decoder) if upsampling == "transposed" else None,
        norm_epsilon=draw(st.floats(1e-12, 1.0)),
        norm_momentum=draw(st.floats(1e-6, 1.0)),
    )
