"""Source pictures: AV1 coding, the library of decoded sources and the policy that adds them to a live stream."""
