package main

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
)

const (
	prefix     = "carousel-bench-"
	switchName = prefix + "switch" // the namespace that holds the bridge
)

func namespace(rank int) string { return fmt.Sprint(prefix, rank) }
func address(rank int) string   { return fmt.Sprint("10.231.77.", rank+1) }

// command runs a program and returns what it says, also in its error.
func command(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// joinRanks gives each rank a network namespace with the interface eth0, joined by a bridge in another
// one. Both ends of each link are shaped: a rank sends at its own end and receives at the bridge's.
func joinRanks(ctx context.Context, ranks int, rate string) error {
	if err := removeNamespaces(ctx); err != nil {
		return err
	}
	in := func(ns, line string) error {
		_, err := command(ctx, "ip", append([]string{"netns", "exec", ns}, strings.Fields(line)...)...)
		return err
	}
	if _, err := command(ctx, "ip", "netns", "add", switchName); err != nil {
		return fmt.Errorf("%w; namespaces need root", err)
	}
	lines := [][2]string{{switchName, "ip link add bridge type bridge"}, {switchName, "ip link set bridge up"}}
	for r := range ranks {
		if _, err := command(ctx, "ip", "netns", "add", namespace(r)); err != nil {
			return err
		}
		port := fmt.Sprint("port", r)
		lines = append(lines,
			[2]string{switchName, fmt.Sprintf("ip link add %s type veth peer name eth0 netns %s", port, namespace(r))},
			[2]string{switchName, fmt.Sprintf("ip link set %s master bridge up", port)},
			[2]string{namespace(r), "ip link set lo up"},
			[2]string{namespace(r), fmt.Sprintf("ip address add %s/24 dev eth0", address(r))},
			[2]string{namespace(r), "ip link set eth0 up"})
		if rate != "none" {
			const shape = "tc qdisc add dev %s root tbf rate %s burst 128kb latency 50ms"
			lines = append(lines, [2]string{switchName, fmt.Sprintf(shape, port, rate)}, [2]string{namespace(r), fmt.Sprintf(shape, "eth0", rate)})
		}
	}
	for _, l := range lines {
		if err := in(l[0], l[1]); err != nil {
			return err
		}
	}
	return nil
}

// removeNamespaces removes those of this program, also of an earlier run that was killed.
func removeNamespaces(ctx context.Context) error {
	list, err := command(ctx, "ip", "netns", "list")
	if err != nil {
		return err
	}
	for line := range strings.Lines(list) {
		if f := strings.Fields(line); len(f) > 0 && strings.HasPrefix(f[0], prefix) {
			if _, err := command(ctx, "ip", "netns", "del", f[0]); err != nil {
				return err
			}
		}
	}
	return nil
}
