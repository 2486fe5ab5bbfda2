import logging

c = get_config()  # noqa: F821

# The health check asks every other second.
logging.getLogger("tornado.access").addFilter(lambda record: " OPTIONS /api (127.0.0.1)" not in record.getMessage())

# By default the gateway drops output beyond about 1 MB/s.
c.ZMQChannelsWebsocketConnection.limit_rate = False
c.KernelGatewayApp.kernel_websocket_connection_class = "ipybox.channels.Channels"
# No client of these images comes back to a connection. What is kept for one has no limit, and sometimes
# stands in the way of the kernel's end.
c.MappingKernelManager.buffer_offline_messages = False
