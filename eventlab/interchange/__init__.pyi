from . import protobuf as protobuf
