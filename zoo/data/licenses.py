"""Licenses of data sets that published weights were trained on."""

from __future__ import annotations

LICENSES = {
    "mnist": "CC BY-SA 3.0 (https://keras.io/api/datasets/mnist)",
    "digits": "CC BY 4.0 (UCI, Optical Recognition of Handwritten Digits, https://archive.ics.uci.edu/dataset/80)",
    "isbi_membrane": "for non-commercial image segmentation software; publications cite TrakEM2 and Cardona et al. "
    "2010, PLoS Biology 8(10) (ISBI 2012 segmentation challenge, http://brainiac2.mit.edu/isbi_challenge)",
    "tinyshakespeare": "public domain (plays by William Shakespeare, https://github.com/karpathy/char-rnn)",
    "cifar10": "none stated; publications cite Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images "
    "(https://www.cs.toronto.edu/~kriz/cifar.html)",
    "cats_dogs": "none stated (photographs of Sachan 2017, Tensorflow Tutorial 2, cv-tricks.com)",
    "rt_polarity": "none stated; publications cite Pang and Lee 2005 "
    "(https://www.cs.cornell.edu/people/pabo/movie-review-data)",
    "scenes": "Apache-2.0 (made by this package)",
}
UNKNOWN = "see the data set's own terms"


def license_of(data_name: str | None) -> str:
    """The license of the public data set of that name; advice for any other."""
    return LICENSES.get(data_name or "", UNKNOWN)
