package bench

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/carousel-ml/carousel/internal/simd"
	"github.com/carousel-ml/carousel/tensor"
)

// Machine is what was measured of the machine, and what the system reports
// about it.
type Machine struct {
	CPU     string `json:"cpu,omitempty"` // the processor, as the system names it
	System  string `json:"system"`        // operating system and architecture, as Go names them
	Go      string `json:"go"`            // version of Go that it is built with
	Device  string `json:"device"`        // with the kernels that the results were measured with
	Probe   string `json:"probe"`         // the kernel set whose instructions the probes use
	Threads int    `json:"threads"`       // default number of threads
	L2      int    `json:"l2_bytes"`      // of one core
	L3      int    `json:"l3_bytes"`      // of all, 0 for none
	Rates   []Rate `json:"rates"`         // the limits, by number of threads
	// PeakMoved is how far below the best, with all threads, the peak was
	// found between two tasks: above 0.1, which is 10 %, something else was running.
	PeakMoved float64  `json:"peak_moved"`
	Vector    []Vector `json:"vector"` // speed of the elementwise kernels

	lowest float64 // peak with all threads, in GFLOP/s
}

// Rate is the most that a number of threads reached at once: multiply-adds in
// GFLOP/s, and in GB/s reading from half of each second cache, from half of the
// third, and from memory.
type Rate struct {
	Threads int     `json:"threads"`          // number of threads
	Peak    float64 `json:"fma_gflops"`       // multiply-adds in registers, GFLOP/s
	L2      float64 `json:"l2_gbs"`           // reading from the second cache, GB/s
	L3      float64 `json:"l3_gbs,omitempty"` // reading from the third cache, GB/s; absent without one
	Memory  float64 `json:"memory_gbs"`       // reading from memory, GB/s

	streams map[float64]float64 // by footprint in bytes, where that is more than the caches hold
}

// Vector is the throughput of an elementwise kernel on one thread in the first
// cache, in thousand millions of elements a second.
type Vector struct {
	Name string  `json:"name"`      // the kernel
	Rate float64 `json:"gelements"` // thousand millions of elements a second, on one thread in the first cache
}

// Assumed where the system does not report its caches.
const (
	usualL2 = 1 << 20
	usualL3 = 32 << 20
)

func describeMachine(threads int) Machine {
	m := Machine{
		CPU: CPUName(), System: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version(),
		Device: tensor.CPU().Name(), Probe: simd.Sets()[0].Name, Threads: threads,
	}
	m.L2, m.L3 = caches("/sys/devices/system/cpu/cpu0/cache")
	return m
}

// CPUName returns the processor's name where Linux reports it.
func CPUName() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// caches reads the sizes of the second and third cache from Linux's description.
func caches(dir string) (l2, l3 int) {
	read := func(index, file string) string {
		text, err := os.ReadFile(filepath.Join(dir, index, file))
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(text))
	}
	entries, _ := os.ReadDir(dir) // none where there is no such directory
	sizes := map[string]int{}
	for _, e := range entries {
		number, unit := read(e.Name(), "size"), 1
		switch {
		case strings.HasSuffix(number, "K"):
			unit = 1 << 10
		case strings.HasSuffix(number, "M"):
			unit = 1 << 20
		}
		n, err := strconv.Atoi(strings.TrimRight(number, "KM"))
		if err == nil && read(e.Name(), "type") != "Instruction" {
			sizes[read(e.Name(), "level")] = n * unit
		}
	}
	if sizes["2"] == 0 {
		return usualL2, usualL3
	}
	return sizes["2"], sizes["3"]
}

// together runs work on n threads at once for d and adds up their work per
// second.
func together(n int, d time.Duration, work func(thread int) float64) float64 {
	var ready, done sync.WaitGroup
	start := make(chan struct{})
	rates := make([]float64, n)
	ready.Add(n)
	for i := range n {
		done.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			work(i)
			ready.Done()
			<-start
			begin, amount := time.Now(), 0.0
			for time.Since(begin) < d {
				amount += work(i)
			}
			rates[i] = amount / time.Since(begin).Seconds()
		})
	}
	ready.Wait()
	close(start)
	done.Wait()
	sum := 0.0
	for _, r := range rates {
		sum += r
	}
	return sum
}

// Peak measures the rate of multiply-adds, in GFLOP/s, of n threads at once
// with all operands in registers, over one window of d.
func Peak(n int, d time.Duration) float64 {
	p := probeOf(simd.Sets()[0].Name)
	const rounds = 1 << 13
	return 1e-9 * together(n, d, func(int) float64 {
		p.fma(rounds, 0.75)
		return float64(rounds * p.flopPerRound)
	})
}

// readRate measures the rate in GB/s at which n threads read their shares of
// buf repeatedly. It reads memory in the way the kernels do.
func readRate(n int, d time.Duration, buf []float32) float64 {
	p := probeOf(simd.Sets()[0].Name)
	const piece = 1 << 16 // elements between readings of the clock
	share := len(buf) / n / p.readBlock * p.readBlock
	at := make([]struct {
		i int
		_ [56]byte // a cache line each
	}, n)
	return 1e-9 * together(n, d, func(t int) float64 {
		mine := buf[t*share : (t+1)*share]
		lo := at[t].i
		hi := min(lo+piece, share)
		p.read(mine[lo:hi])
		at[t].i = hi
		if hi == share {
			at[t].i = 0
		}
		return float64(4 * (hi - lo))
	})
}

// probe measures the machine with each number of threads. Each rate keeps its
// highest measurement.
func (m *Machine) probe(buf []float32, e effort) {
	m.probePeak(e)
	for i := range m.Rates {
		r := &m.Rates[i]
		read := func(bytes int) func() float64 {
			return func() float64 { return readRate(r.Threads, e.window, buf[:bytes/4]) }
		}
		r.L2 = max(r.L2, e.best(read(r.Threads*m.L2/2)))
		if m.L3 > 0 {
			r.L3 = max(r.L3, e.best(read(max(m.L3/2, 2*r.Threads*m.L2))))
		}
		r.Memory = max(r.Memory, e.best(read(4*len(buf))))
	}
}

// probePeak measures the multiply-adds alone.
func (m *Machine) probePeak(e effort) {
	for i := range m.Rates {
		r := &m.Rates[i]
		now := e.best(func() float64 { return Peak(r.Threads, e.window) })
		r.Peak = max(r.Peak, now)
		if r.Threads != m.Threads {
			continue
		}
		if m.lowest == 0 || now < m.lowest {
			m.lowest = now
		}
		m.PeakMoved = 1 - m.lowest/r.Peak
	}
}

// probeStreams measures reading over each footprint larger than the caches.
// Part of it may still be found in the third-level cache, so the rate depends
// on its size.
func (m *Machine) probeStreams(list []traffic, buf []float32, e effort) {
	for i := range m.Rates {
		r := &m.Rates[i]
		for _, t := range list {
			if name, _ := m.level(r, t.footprint); name != memory {
				continue
			}
			if r.streams == nil {
				r.streams = map[float64]float64{}
			}
			part := buf[:min(int(t.footprint)/4, len(buf))]
			now := e.best(func() float64 { return readRate(r.Threads, 2*e.window, part) })
			r.streams[t.footprint] = max(r.streams[t.footprint], now)
		}
	}
}

// best returns the best of some windows, which excludes the load of other
// processes.
func (e effort) best(measure func() float64) float64 {
	most := 0.0
	for range e.windows {
		most = max(most, measure())
	}
	return most
}

// probeBuffer allocates memory larger than every cache.
func (m *Machine) probeBuffer(threads int) []float32 {
	n := min(max(4*m.L3, 16*threads*m.L2, 64<<20), 1<<30) / 4
	buf := make([]float32, n)
	for i := range buf {
		buf[i] = 1 // untouched pages would all be the same page of zeros
	}
	return buf
}

// vectors measures the elementwise kernels of the current set.
func vectors(e effort) []Vector {
	src, dst := make([]float32, 2048), make([]float32, 2048)
	for i := range src {
		src[i] = float32(i)/128 - 8
	}
	set := simd.Best()
	list := []struct {
		name string
		run  func(dst, src []float32)
	}{{"exp", set.Exp}, {"sigmoid", set.Sigmoid}, {"tanh", set.Tanh}}
	var out []Vector
	for _, k := range list {
		out = append(out, Vector{k.name, 1e-9 * e.best(func() float64 {
			return together(1, e.window, func(int) float64 {
				for range 16 {
					k.run(dst, src)
				}
				return float64(16 * len(src))
			})
		})})
	}
	return out
}
