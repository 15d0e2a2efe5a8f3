"""One container from launch to exit: lease, launch, relay, ending."""
