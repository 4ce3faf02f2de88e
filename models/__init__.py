"""Networks to study: plain Equinox modules that know no dynamics."""

from nthsim.models.fcn import FCN as FCN
from nthsim.models.resnet import ResNet as ResNet

#: Those that a file alone restores, and that the command line knows, by the names of their classes.
#: Their static fields are the arguments that they were made with.
MODELS = {"FCN": FCN, "ResNet": ResNet}
