"""An ordinary MQTT client: subscribes, publishes, and says what came back.

usage: ordinary_client.py PORT CA USER TOKEN_FILE VERSION TOPIC PAYLOAD
"""

import ssl
import sys
import threading

import paho.mqtt.client as mqtt

WAIT_S = 20


def main(port, ca, user, token_file, version, topic, payload):
    with open(token_file, encoding="ascii") as file:
        token = file.read().strip()
    protocol = {"3.1.1": mqtt.MQTTv311, "5": mqtt.MQTTv5}[version]
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=protocol)
    client.username_pw_set(user, token)
    client.tls_set(ca_certs=ca, tls_version=ssl.PROTOCOL_TLS_CLIENT)
    heard, subscribed, ended = threading.Event(), threading.Event(), threading.Event()
    codes = {}

    def on_connect(client, _data, _flags, reason, _properties):
        codes["connect"] = reason.value
        if not reason.is_failure:
            client.subscribe(topic, qos=1)

    def on_subscribe(_client, _data, _mid, reasons, _properties):
        codes["subscribe"] = reasons[0].value
        subscribed.set()

    def on_message(_client, _data, message):
        codes["message"] = message.payload.decode()
        codes["qos"] = message.qos
        heard.set()

    def on_publish(_client, _data, _mid, reason, _properties):
        codes["publish"] = reason.value

    def on_disconnect(_client, _data, _flags, _reason, _properties):
        ended.set()
        subscribed.set()
        heard.set()

    client.on_connect, client.on_subscribe = on_connect, on_subscribe
    client.on_message, client.on_publish = on_message, on_publish
    client.on_disconnect = on_disconnect
    client.connect("localhost", int(port), keepalive=30)
    client.loop_start()
    if not subscribed.wait(WAIT_S):
        sys.exit("no SUBACK")
    if codes.get("subscribe", 0x80) < 0x80:
        client.publish(topic, payload, qos=1).wait_for_publish(WAIT_S)
        if not heard.wait(WAIT_S):
            sys.exit("no message")
    client.disconnect()
    client.loop_stop()
    print(" ".join(f"{key}={value}" for key, value in sorted(codes.items())))


main(*sys.argv[1:])
