"""Networks to study: plain Equinox modules that know no dynamics."""

from nthsim.models.fcn import FCN as FCN
from nthsim.models.resnet import ResNet as ResNet
