/*
 * Speaks with the host over a stream or datagrams, for the test guest's init.
 *
 *   talk FAMILY PEER PORT           sends standard input to a peer, says that this is all, and prints what comes back
 *   talk FAMILY PEER PORT LISTEN    is ready to be called at port LISTEN, tells the peer so by the word "ready" in the same
 *                                   way, and then answers one caller with whatever that says, until it says no more
 *
 * FAMILY is vsock (PEER is a context id), tcp or udp (PEER is an IPv4 address). One datagram is all of a udp peer's words; a udp
 * caller has said all with an empty datagram. Nothing takes longer than two minutes.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <linux/vm_sockets.h>

#define DEADLINE 120

union address {
	struct sockaddr any;
	struct sockaddr_in in;
	struct sockaddr_vm vm;
};

static int family, type;
static socklen_t length;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static union address address(const char *peer, const char *port)
{
	union address to;

	memset(&to, 0, sizeof(to));
	if (family == AF_VSOCK) {
		to.vm.svm_family = AF_VSOCK;
		to.vm.svm_cid = peer ? strtoul(peer, NULL, 0) : VMADDR_CID_ANY;
		to.vm.svm_port = strtoul(port, NULL, 0);
	} else {
		to.in.sin_family = AF_INET;
		to.in.sin_addr.s_addr = peer ? inet_addr(peer) : INADDR_ANY;
		to.in.sin_port = htons(strtoul(port, NULL, 0));
	}
	return to;
}

static void send_all(int to, const char *data, size_t count)
{
	while (count) {
		ssize_t sent = write(to, data, count);

		if (sent <= 0)
			fail("write");
		data += sent;
		count -= sent;
	}
}

/* Sends `word`, or standard input if there is none; then prints what comes back. */
static void call(const char *peer, const char *port, const char *word)
{
	static char data[1 << 16];
	union address to = address(peer, port);
	int out = socket(family, type, 0);
	ssize_t count;

	if (out < 0 || connect(out, &to.any, length))
		fail("connect");
	if (word)
		send_all(out, word, strlen(word));
	else
		while ((count = read(0, data, sizeof(data))) > 0)
			send_all(out, data, count);
	if (type == SOCK_STREAM)
		shutdown(out, SHUT_WR);
	while ((count = read(out, data, sizeof(data))) > 0) {
		send_all(1, data, count);
		if (type == SOCK_DGRAM)
			break;
	}
	if (count < 0)
		fail("read");
	close(out);
}

/* Answers one caller with what it says. */
static void answer(int in)
{
	static char data[1 << 16];
	union address caller;
	ssize_t count;

	if (type == SOCK_STREAM) {
		int connection = accept(in, NULL, NULL);

		if (connection < 0)
			fail("accept");
		while ((count = read(connection, data, sizeof(data))) > 0)
			send_all(connection, data, count);
		if (count < 0)
			fail("read");
		close(connection);
		return;
	}
	do {
		socklen_t size = sizeof(caller);

		count = recvfrom(in, data, sizeof(data), 0, &caller.any, &size);
		if (count < 0 || sendto(in, data, count, 0, &caller.any, size) != count)
			fail("datagram");
	} while (count);
}

int main(int argc, char **argv)
{
	int in = -1;

	if (argc != 4 && argc != 5)
		return 2;
	family = strcmp(argv[1], "vsock") ? AF_INET : AF_VSOCK;
	type = strcmp(argv[1], "udp") ? SOCK_STREAM : SOCK_DGRAM;
	length = family == AF_VSOCK ? sizeof(struct sockaddr_vm) : sizeof(struct sockaddr_in);
	alarm(DEADLINE);
	if (argc == 5) {
		union address here = address(NULL, argv[4]);

		in = socket(family, type, 0);
		if (in < 0 || bind(in, &here.any, length) || (type == SOCK_STREAM && listen(in, 1)))
			fail("listen");
	}
	call(argv[2], argv[3], argc == 5 ? "ready" : NULL);
	if (argc == 5)
		answer(in);
	return 0;
}
