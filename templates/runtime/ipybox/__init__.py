"""What runs inside images that `ipybox` builds."""
