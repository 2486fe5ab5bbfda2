c = get_config()  # noqa: F821

# By default the gateway drops output beyond about 1 MB/s.
c.ZMQChannelsWebsocketConnection.limit_rate = False
