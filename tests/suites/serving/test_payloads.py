"""What goes over the wire: everything comes back from the bytes alone, and the bytes are those of the closed form."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from suites.serving.payloads import Affine, Floats, Pictures, Pixels, codec_of, header, packed, unpacked, without_header
from tests.suites.serving.cutting import small

SIDES = st.lists(st.integers(1, 6), min_size=1, max_size=3)


@given(SIDES, st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_floats_come_back_bit_for_bit(sides, seed):
    numbers = torch.randn(2, *sides, generator=torch.Generator().manual_seed(seed))
    payload = Floats().encode(numbers)
    assert torch.equal(Floats().decode(payload), numbers)
    assert len(payload) == 4 * numbers.numel() + 1 + 2 * numbers.dim()


@given(SIDES, st.integers(1, 16), st.integers(0, 10_000), st.floats(-5, 5))
@settings(max_examples=60, deadline=None)
def test_codes_are_at_most_a_step_off_and_as_long_as_their_bits(sides, bits, seed, shift):
    numbers = torch.randn(3, *sides, generator=torch.Generator().manual_seed(seed)) + shift
    codec = Affine(bits)
    payload = codec.encode(numbers)
    found = codec.decode(payload)
    assert torch.equal(found, codec.rounded(numbers))
    _, scale, _ = codec.codes(numbers)
    room = scale.reshape(-1, *[1] * len(sides)) * 1.01
    assert bool(((found - numbers).abs() <= room).all())
    assert len(payload) == len(header(numbers.shape)) + 6 * 3 + -(-bits * numbers.numel() // 8)


def test_a_sample_is_coded_by_itself():
    numbers = torch.randn(2, 3, 4) * torch.tensor([1.0, 100.0]).reshape(2, 1, 1)
    both, first = Affine(8).rounded(numbers), Affine(8).rounded(numbers[:1])
    assert torch.equal(both[:1], first)


def test_zeros_and_constants_survive():
    for value in (0.0, 2.5, -2.5):
        assert torch.allclose(Affine(8).rounded(torch.full((1, 4), value)), torch.full((1, 4), value), atol=1e-6)


@given(st.integers(1, 16), st.integers(0, 40), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_packed_numbers_are_unpacked(bits, count, seed):
    codes = torch.randint(2**bits, (count,), generator=torch.Generator().manual_seed(seed)).numpy()
    assert unpacked(packed(codes, bits), bits, count).tolist() == codes.tolist()


def test_pixels_are_those_of_the_picture_and_files_have_their_length():
    module = small()
    (images,) = module.example_inputs(3)
    raw = Pixels(module.mean, module.deviation)
    assert without_header(raw.encode(images))[0] == (3, 32, 32, 1)
    assert (raw.decode(raw.encode(images)) - images).abs().max() <= 0.51 / 255 / min(module.deviation)
    file = Pictures(module.mean, module.deviation, 90)
    assert file.decode(file.encode(images)).shape == images.shape
    assert len(file.encode(images)) < len(raw.encode(images))
    coarse = Pictures(module.mean, module.deviation, 5)
    assert len(coarse.encode(images)) < len(file.encode(images))


def test_the_payload_is_no_pickle():
    numbers = torch.zeros(1, 2, 29, 29)
    assert len(Affine(8).encode(numbers)) == 2 * 29 * 29 + 9 + 6


def test_a_number_of_bits_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="1 to 16 bits"):
        codec_of(24)
    with pytest.raises(ValueError, match="two bytes each"):
        header((70_000,))
