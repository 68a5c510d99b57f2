// Package rig runs the ranks of a benchmark: in network namespaces of their own, joined by links of a
// given rate, as programs that answer requests, on a device whose large operations may wait in place of
// computing. Namespaces need root, ip and tc, and leave the machine's own interfaces alone.
package rig

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// A Network is a namespace for each rank, named Prefix with the rank's number, and one named Prefix with
// "switch" that holds a bridge. In a rank's namespace eth0 leads to the bridge.
type Network struct {
	Prefix string // such as "carousel-bench-": removes all namespaces whose names begin so
	Ranks  int
}

// Name is the namespace of a rank.
func (n *Network) Name(rank int) string { return fmt.Sprint(n.Prefix, rank) }

// Address is where a rank is reached within the network.
func (n *Network) Address(rank int) string { return fmt.Sprint("10.231.77.", rank+1) }

// Command runs a program in a rank's namespace.
func (n *Network) Command(ctx context.Context, rank int, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", n.Name(rank)}, args...)...)
}

func (n *Network) bridge() string { return n.Prefix + "switch" }

// Congestion is TCP's control of congestion in the namespaces, the one that every Linux has and allows: on
// links that lose nothing it grows as CUBIC, the usual default, does. BBR, which machines of clouds may
// have, paces a connection that carries little at a time far below its share of the link.
const Congestion = "reno"

// Join makes the namespaces, after it has removed what an earlier run left. Links are not limited.
func (n *Network) Join(ctx context.Context) error {
	if err := n.Remove(ctx); err != nil {
		return err
	}
	if _, err := Run(ctx, "ip", "netns", "add", n.bridge()); err != nil {
		return fmt.Errorf("%w; namespaces need root", err)
	}
	lines := [][2]string{{n.bridge(), "ip link add bridge type bridge"}, {n.bridge(), "ip link set bridge up"}}
	for r := range n.Ranks {
		if _, err := Run(ctx, "ip", "netns", "add", n.Name(r)); err != nil {
			return err
		}
		lines = append(lines,
			[2]string{n.bridge(), fmt.Sprintf("ip link add port%d type veth peer name eth0 netns %s", r, n.Name(r))},
			[2]string{n.bridge(), fmt.Sprintf("ip link set port%d master bridge up", r)},
			[2]string{n.Name(r), "sysctl -qw net.ipv4.tcp_congestion_control=" + Congestion},
			[2]string{n.Name(r), "ip link set lo up"},
			[2]string{n.Name(r), fmt.Sprintf("ip address add %s/24 dev eth0", n.Address(r))},
			[2]string{n.Name(r), "ip link set eth0 up"})
	}
	return inside(ctx, lines)
}

// Burst is how many bytes pass a link of Shape at once after a pause.
const Burst = 128 << 10

// Shape limits both directions of each link to a rate, as tc writes it ("1gbit"): a rank sends at its
// own end and receives at the bridge's.
func (n *Network) Shape(ctx context.Context, rate string) error {
	var lines [][2]string
	for r := range n.Ranks {
		const shape = "tc qdisc replace dev %s root tbf rate %s burst %d latency 50ms"
		lines = append(lines, [2]string{n.bridge(), fmt.Sprintf(shape, fmt.Sprint("port", r), rate, Burst)}, [2]string{n.Name(r), fmt.Sprintf(shape, "eth0", rate, Burst)})
	}
	return inside(ctx, lines)
}

// Remove removes the namespaces, also those of an earlier run that was killed.
func (n *Network) Remove(ctx context.Context) error {
	list, err := Run(ctx, "ip", "netns", "list")
	if err != nil {
		return err
	}
	for line := range strings.Lines(list) {
		if f := strings.Fields(line); len(f) > 0 && strings.HasPrefix(f[0], n.Prefix) {
			if _, err := Run(ctx, "ip", "netns", "del", f[0]); err != nil {
				return err
			}
		}
	}
	return nil
}

// inside runs lines, each in a namespace.
func inside(ctx context.Context, lines [][2]string) error {
	for _, l := range lines {
		if _, err := Run(ctx, "ip", append([]string{"netns", "exec", l[0]}, strings.Fields(l[1])...)...); err != nil {
			return err
		}
	}
	return nil
}

// Run returns what a program says, also in its error.
func Run(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}
