package bench

import "github.com/carousel-ml/carousel/tensor"

// The least time a machine needs: the multiply-adds at their peak, or the
// weights through the level of memory that holds them, whichever is longer.

// traffic is bytes that must come from where a footprint of bytes fits.
type traffic struct{ bytes, footprint float64 }

// memory is the level beyond the caches.
const memory = "memory"

// usable is the part of a cache that weights may fill: other data goes through it too.
const usable = 0.75

// level names the level that holds a footprint and gives its rate in bytes a second.
func (m *Machine) level(r *Rate, footprint float64) (name string, rate float64) {
	switch {
	case footprint <= usable*float64(r.Threads*m.L2):
		return "l2", 1e9 * r.L2
	case footprint <= usable*float64(m.L3):
		return "l3", 1e9 * r.L3
	}
	if rate, ok := r.streams[footprint]; ok {
		return memory, 1e9 * rate
	}
	return memory, 1e9 * r.Memory
}

// bound is the least time in seconds for flop operations and the traffic on
// r.Threads threads, and which limit it is: "fma", "l2", "l3" or "memory".
func (m *Machine) bound(r *Rate, flop float64, list []traffic) (seconds float64, name string) {
	seconds, name = flop/(1e9*r.Peak), "fma"
	stream, slowest, at := 0.0, 0.0, ""
	for _, t := range list {
		level, rate := m.level(r, t.footprint)
		s := t.bytes / rate
		if stream += s; s > slowest {
			slowest, at = s, level
		}
	}
	if stream > seconds {
		return stream, at
	}
	return seconds, name
}

// traffic is what a pass must read at the least. In one step every weight comes
// by once. Over many steps the recurrent matrices do, one layer after the other,
// again at each; the others are used for all steps at once.
func (s Shape) traffic(cell tensor.Cell, train bool) []traffic {
	weights, recurrent := s.weightBytes(cell), s.recurrentBytes(cell)
	passes := 1.0
	var list []traffic
	if train {
		// Backwards again, to write the gradient, and in the optimizer weight,
		// gradient and two moments read and written.
		passes = 2
		list = append(list, traffic{9 * weights, 4 * weights})
	}
	if s.T == 1 {
		return append(list, traffic{passes * weights, weights})
	}
	return append(list, traffic{passes * float64(s.T*s.L) * recurrent, recurrent})
}
