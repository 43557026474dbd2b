"""Hands connections to a port of the loopback interface on to a UNIX socket, for clients that know TCP only.

usage: bridge.py SOCKET     prints the port, which the kernel chooses, and goes on until it is ended
"""

import socket
import sys
import threading


def copy(source, target):
    """Copies bytes until there are no more, and says so."""
    try:
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        # One of both is gone: the other hears of it too.
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def bridge(client, path):
    with client, socket.socket(socket.AF_UNIX) as service:
        try:
            service.connect(path)
        except OSError as error:
            print(f"bridge.py: {path}: {error}", file=sys.stderr)
            return
        back = threading.Thread(target=copy, args=(service, client), daemon=True)
        back.start()
        copy(client, service)
        back.join()


def main():
    path = sys.argv[1]
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            client, _ = listener.accept()
            threading.Thread(target=bridge, args=(client, path), daemon=True).start()


main()
