package main

import "math/bits"

// A link is what a rank's messages meet on their way, and what becomes of them at their end.
type link struct {
	rate    float64 // bytes a second of a rank's (or, with several ranks a node, a node's) link, in each direction
	inside  float64 // the same between ranks of one node
	alpha   float64 // seconds from the last byte sent to the rank that waits for it
	message float64 // seconds of processor for each message of an Exchange, both ends together
	sum     float64 // seconds to add one byte of the own chunk of one rank
	rounded float64 // the same where values travel as bfloat16, with their rounding
	search  float64 // seconds to look for rows of zeros in a byte of a table
	move    float64 // seconds to copy a byte of rows of a table that lie apart
	perNode int     // ranks that share a link; 0 is 1

	// Of links that tc shapes: after a pause so many bytes pass at the rate of the host.
	burst, host float64
}

// An exchange is one call of a transport's Exchange, on all ranks.
type exchange struct {
	to    func(rank int) []int // the peers that a rank sends to, in order; as many send to it
	peers int                  // their number
	bytes float64              // to each of them
	added float64              // bytes of values that a rank adds after it, its own included
}

// An algorithm adds vectors of all ranks by exchanges.
type algorithm struct {
	name string

	// stages divides the ranks: groups of stages[0] neighbours first exchange the chunks of their vectors,
	// then groups of stages[1] of those with equal numbers within them exchange parts of their chunks, and
	// so on; the sums go back in reverse. Their product is the number of ranks; nil: not with that number.
	// Sums are added in the order of train.World if all but the last are powers of two.
	stages func(ranks, perNode int) []int

	// ring sends chunks around a ring, in no order that would fit the tree of train.World.
	ring bool
}

var (
	direct  = algorithm{name: "direct", stages: func(ranks, _ int) []int { return []int{ranks} }}
	halving = algorithm{name: "halving/doubling", stages: func(ranks, _ int) []int {
		if bits.OnesCount(uint(ranks)) != 1 {
			return nil
		}
		stages := make([]int, bits.Len(uint(ranks))-1)
		for i := range stages {
			stages[i] = 2
		}
		return stages
	}}
	// twoStage has groups of 2^k ranks, about the root of their number.
	twoStage = algorithm{name: "two-stage", stages: func(ranks, _ int) []int {
		group := 1
		for 4*group*group <= 2*ranks && ranks%(2*group) == 0 {
			group *= 2
		}
		return []int{group, ranks / group}
	}}
	hierarchical = algorithm{name: "hierarchical", stages: func(ranks, perNode int) []int {
		if ranks%perNode != 0 {
			return nil
		}
		return []int{perNode, ranks / perNode}
	}}
	ring = algorithm{name: "ring", ring: true}
)

// exchanges are those of one sum of so many bytes: reduce-scatter, then all-gather.
func (a *algorithm) exchanges(ranks, perNode int, bytes float64) []exchange {
	if ranks == 1 {
		return nil
	}
	var there, back []exchange
	if a.ring {
		next := func(rank int) []int { return []int{(rank + 1) % ranks} }
		for range ranks - 1 {
			chunk := bytes / float64(ranks)
			there = append(there, exchange{next, 1, chunk, 2 * chunk})
			back = append(back, exchange{next, 1, chunk, 0})
		}
		return append(there, back...)
	}
	stride := 1
	for _, size := range a.stages(ranks, max(perNode, 1)) {
		if size == 1 {
			continue
		}
		step := stride
		to := func(rank int) []int {
			own := rank / step % size
			list := make([]int, 0, size-1)
			for i := 1; i < size; i++ {
				list = append(list, rank+((own+i)%size-own)*step)
			}
			return list
		}
		there = append(there, exchange{to, size - 1, bytes / float64(size), bytes})
		back = append([]exchange{{to, size - 1, bytes / float64(size), 0}}, back...)
		bytes /= float64(size)
		stride *= size
	}
	return append(there, back...)
}

// seconds is how long an exchange takes from the moment at which the last rank begins it: a message is
// made by the processor while those before it are on the link. The network of [network.run] comes to
// the same where it is slow enough to be asked.
func (l *link) seconds(e *exchange) float64 {
	outside, rate := e.peers, l.rate
	within := 0
	if l.perNode > 1 {
		within = 0
		for _, r := range e.to(0) { // all ranks are alike
			if r/l.perNode == 0 {
				within++
			}
		}
		outside -= within
		rate /= float64(l.perNode)
	}
	wire := float64(outside) * e.bytes / rate
	if within > 0 {
		wire = max(wire, float64(within)*e.bytes/l.inside)
	}
	first := wire / float64(e.peers)
	return l.alpha + l.message + first + float64(e.peers-1)*max(l.message, first) + e.added*l.sum
}

// gather is the time of a Gather of few numbers.
func (l *link) gather(ranks int) float64 {
	if ranks == 1 {
		return 0
	}
	return l.alpha + float64(ranks-1)*l.message
}
