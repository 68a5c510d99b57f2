package dist_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/dist"
	"github.com/carousel-ml/carousel/dist/disttest"
)

// freeAddress is an address of this machine at which nobody listens, with a port that
// is not one of outgoing connections.
func freeAddress(t testing.TB) string {
	t.Helper()
	for {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(12000)))
		if err == nil {
			l.Close()
			return l.Addr().String()
		}
	}
}

// places are the ranks of a job on this machine.
func places(t testing.TB, size int) []*dist.Place {
	address := freeAddress(t)
	list := make([]*dist.Place, size)
	for r := range list {
		list[r] = &dist.Place{Rank: r, Size: size, Address: address, Secret: []byte("of the job")}
	}
	return list
}

// connect meets ranks, each in a goroutine.
func connect(ctx context.Context, list []*dist.Place, o *dist.Options) ([]dist.Transport, []error) {
	ranks, errs := make([]dist.Transport, len(list)), make([]error, len(list))
	var all sync.WaitGroup
	for i, p := range list {
		all.Go(func() { ranks[i], errs[i] = dist.Connect(ctx, p, o) })
	}
	all.Wait()
	return ranks, errs
}

// mesh is a job of ranks that have met.
func mesh(t testing.TB, size int, o *dist.Options) []dist.Transport {
	t.Helper()
	ranks, errs := connect(t.Context(), places(t, size), o)
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return ranks
}

// closeAll closes all ranks at once, as they have to.
func closeAll(ranks []dist.Transport) error {
	errs := make([]error, len(ranks))
	var all sync.WaitGroup
	for i, r := range ranks {
		all.Go(func() { errs[i] = r.Close() })
	}
	all.Wait()
	return errors.Join(errs...)
}

// Sums, gathered numbers and shared bytes are right over TCP, and what is sent last
// arrives though its sender closes at once.
func TestWorldOverTCP(t *testing.T) {
	for _, size := range []int{2, 3, 5} {
		ranks := mesh(t, size, nil)
		list := brought(size, 100_003)
		want := treeSum(list)
		onAll(t, ranks, func(w *dist.World) error {
			for range 3 {
				v := slices.Clone(list[w.Rank()])
				if err := w.Sum(v, nil); err != nil {
					return err
				}
				if !sameBits(v, want) {
					return fmt.Errorf("rank %d of %d has another sum", w.Rank(), w.Size())
				}
				if err := gatherAndShare(w); err != nil {
					return err
				}
			}
			return w.Close()
		})
	}
}

// Any lengths pass, also such as fill all buffers in both directions at once.
func TestExchangeOfAnyLength(t *testing.T) {
	ranks := mesh(t, 3, nil)
	var all sync.WaitGroup
	for _, tr := range ranks {
		all.Go(func() {
			if err := disttest.Exchange(tr, []int{0, 1, 4095, 4096, 4097, 70_000, 20 << 20}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if err := closeAll(ranks); err != nil {
		t.Error(err)
	}
}

// Sum and Gather allocate nothing once they have run.
func TestNoAllocation(t *testing.T) {
	ranks := mesh(t, 2, nil)
	counts := make([]float64, 2)
	onAll(t, ranks, func(w *dist.World) error {
		v, residual := make([]float32, 50_000), make([]float32, 50_000)
		own, all := make([]float64, 2), make([]float64, 4)
		var err error
		step := func() {
			err = errors.Join(err, w.Sum(v, nil), w.Sum(v, residual), w.Gather(own, all))
		}
		step()
		if w.Rank() == 0 {
			counts[0] = testing.AllocsPerRun(50, step)
		} else {
			for range 51 {
				step()
			}
		}
		return errors.Join(err, w.Close())
	})
	if counts[0] >= 1 {
		t.Errorf("%g allocations a step", counts[0])
	}
}

// notes collects what a job notes.
type notes struct {
	mu    sync.Mutex
	lines []string
}

func (n *notes) add(line string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lines = append(n.lines, line)
}

func (n *notes) all() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.lines)
}

// What strangers send is dropped, noted once, and the job meets and works.
func TestStrangers(t *testing.T) {
	t.Parallel()
	var heard notes
	o := &dist.Options{Note: heard.add, Wait: time.Minute}
	list := places(t, 3)
	ranks, errs := make([]dist.Transport, 3), make([]error, 3)
	var all sync.WaitGroup
	meet := func(r int) { all.Go(func() { ranks[r], errs[r] = dist.Connect(t.Context(), list[r], o) }) }
	meet(0)
	meet(1)
	address := list[0].Address
	dial := func(say string) net.Conn {
		for {
			if c, err := net.Dial("tcp", address); err == nil {
				if _, err := io.WriteString(c, say); err != nil {
					t.Error(err)
				}
				return c
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	dropped := func(c net.Conn) {
		c.SetDeadline(time.Now().Add(5 * time.Second))
		if b, err := io.ReadAll(c); errors.Is(err, os.ErrDeadlineExceeded) || len(b) > 100 {
			t.Errorf("a stranger is not dropped: %d bytes, %v", len(b), err)
		}
		c.Close()
	}
	silent := dial("")
	defer silent.Close()
	begun := dial("CAROUSEL\x01\x00")
	defer begun.Close()
	dropped(dial("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"))
	if _, err := http.Get("http://" + address); err == nil {
		t.Error("a GET has an answer")
	}
	dial("").Close()
	dropped(dial("CAROUSEL\x02\x00 another version"))
	dropped(dial("CAROUSEL\x01\x00" + strings.Repeat("\xff", 31+32)))
	dropped(dial(strings.Repeat("\xff", 100)))
	other := *list[2]
	other.Secret = []byte("of another job")
	ctx, stop := context.WithTimeout(t.Context(), time.Second)
	defer stop()
	if _, err := dist.Connect(ctx, &other, o); err == nil {
		t.Error("a rank with another secret is connected")
	}
	meet(2)
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	dropped(dial("GET / HTTP/1.1\r\n\r\n"))
	onAll(t, ranks, func(w *dist.World) error { return errors.Join(gatherAndShare(w), w.Close()) })
	atRank0 := slices.DeleteFunc(heard.all(), func(s string) bool { return !strings.Contains(s, "connected to rank 0") })
	if len(atRank0) != 1 {
		t.Errorf("noted %q, want one line of rank 0", heard.all())
	}
	if !slices.ContainsFunc(heard.all(), func(s string) bool { return strings.Contains(s, "secret") }) {
		t.Errorf("noted %q, nothing of another secret", heard.all())
	}
}

// When a job fails, its own ranks may leave in the middle of a handshake: they are no strangers.
func TestNoStrangerAtTheEnd(t *testing.T) {
	t.Parallel()
	var heard notes
	list := places(t, 2)
	ranks, errs := connect(t.Context(), list, &dist.Options{Note: heard.add})
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	left := *list[1] // leaves when it has read the proof, as a rank that hears of the end does
	left.Secret = []byte("another")
	_, err := dist.Connect(ctx, &left, &dist.Options{Note: func(string) { stop() }})
	if err == nil {
		t.Fatal("a rank with another secret is connected")
	}
	time.Sleep(50 * time.Millisecond) // rank 0 notices it
	ranks[0].Abort(errors.New("broken"))
	for _, r := range ranks {
		if err := r.Close(); err == nil {
			t.Error("a job that has failed ends well")
		}
	}
	if lines := heard.all(); len(lines) > 0 {
		t.Errorf("noted %q", lines)
	}
}

// What goes wrong at the start ends with one line that names ranks, place and cure.
func TestStartErrors(t *testing.T) {
	t.Parallel()
	var waiting notes
	short := &dist.Options{Wait: 700 * time.Millisecond, Note: waiting.add}
	contain := func(name string, err error, words ...string) {
		t.Helper()
		if err == nil {
			t.Errorf("%s: no error", name)
			return
		}
		for _, word := range words {
			if !strings.Contains(err.Error(), word) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %q does not contain %q in one line", name, err, word)
			}
		}
	}

	list := places(t, 4)
	_, errs := connect(t.Context(), list[:2], short)
	for _, err := range errs {
		contain("too few", err, "ranks 2 and 3 of 4 did not come to rank 0 at "+list[0].Address, "within 700ms", "start all ranks")
	}

	_, errs = connect(t.Context(), list[3:], short)
	contain("no rank 0", errs[0], "rank 3 did not reach rank 0 at "+list[0].Address, "connection refused")
	if lines := waiting.all(); len(lines) != 2 || lines[0] != "rank 0 waits at "+list[0].Address+" for ranks 2 and 3 of 4" || !strings.HasPrefix(lines[1], "rank 3 waits for rank 0 at "+list[0].Address) {
		t.Errorf("noted %q", lines)
	}

	l, err := net.Listen("tcp", list[0].Address)
	if err != nil {
		t.Fatal(err)
	}
	_, errs = connect(t.Context(), list[:1], short)
	contain("port in use", errs[0], "rank 0 cannot listen at "+list[0].Address, "has the port", "choose another")
	go func() { // another program
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "SSH-2.0-OpenSSH_9.2\r\n")
			c.Close()
		}
	}()
	var heard notes
	_, errs = connect(t.Context(), list[1:2], &dist.Options{Wait: short.Wait, Note: heard.add})
	contain("another program", errs[0], "rank 1 did not reach rank 0", `"SSH-2.0-Op"`)
	if lines := heard.all(); len(lines) != 2 || !strings.Contains(lines[0], "SSH") || !strings.Contains(lines[1], "rank 1 waits for rank 0") {
		t.Errorf("noted %q", lines)
	}
	l.Close()

	l, err = net.Listen("tcp", list[0].Address)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		if c, err := l.Accept(); err == nil {
			io.WriteString(c, "CAROUSEL\x07\x00")
			time.Sleep(100 * time.Millisecond)
			c.Close()
		}
	}()
	_, errs = connect(t.Context(), list[1:2], nil)
	contain("another version", errs[0], "version 7", "version 1", "same program")
	l.Close()

	for range 20 { // rank 1 hears it before rank 0 ends
		sizes := places(t, 3)
		sizes[1].Size = 2
		_, errs = connect(t.Context(), sizes[:2], &dist.Options{Wait: 5 * time.Second})
		for _, err := range errs {
			contain("another size", err, "rank 1 at 127.0.0.1:", "counts 2 ranks, rank 0 3", "same number")
		}
	}

	for _, p := range []*dist.Place{
		{Rank: 0, Size: 1, Address: "a:1", Secret: []byte{1}},
		{Rank: 2, Size: 2, Address: "a:1", Secret: []byte{1}},
		{Rank: 0, Size: 2, Address: "a", Secret: []byte{1}},
		{Rank: 0, Size: 2, Address: "a:1"},
	} {
		if _, err := dist.Connect(t.Context(), p, nil); err == nil {
			t.Errorf("%+v is connected", p)
		}
	}

	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(100*time.Millisecond, func() { cancel(errors.New("interrupted")) })
	_, errs = connect(ctx, places(t, 3)[:2], nil)
	for _, err := range errs {
		contain("interrupted", err, "interrupted")
	}
}

// Of two processes with a rank's number one is refused at once, during the start and
// after it, and the job works.
func TestRankTooMany(t *testing.T) {
	list := places(t, 3)
	wrong := func(err error) bool {
		return err == nil || !strings.Contains(err.Error(), "one too many") || !strings.Contains(err.Error(), "own number")
	}
	ranks, errs := connect(t.Context(), append(list, list[1]), nil)
	if errs[1] != nil {
		ranks[1], errs[1], errs[3] = ranks[3], errs[3], errs[1]
	}
	if err := errors.Join(errs[:3]...); err != nil {
		t.Fatal(err)
	}
	if wrong(errs[3]) {
		t.Errorf("a second rank 1 at the start: %v", errs[3])
	}
	if _, err := dist.Connect(t.Context(), list[1], nil); wrong(err) {
		t.Errorf("a second rank 1 after the start: %v", err)
	}
	onAll(t, ranks[:3], func(w *dist.World) error { return errors.Join(gatherAndShare(w), w.Close()) })
}

// An Abort ends the calls of all ranks, pending and later, with its rank and reason.
func TestAbort(t *testing.T) {
	for _, atOnce := range []bool{false, true} {
		ranks := mesh(t, 4, nil)
		var all sync.WaitGroup
		errs := make([]error, 4)
		for r, tr := range ranks {
			w := dist.NewWorld(tr)
			all.Go(func() {
				if r == 2 {
					if !atOnce {
						time.Sleep(50 * time.Millisecond)
					}
					w.Abort(errors.New("the loss\nis not a number"))
				}
				for errs[r] == nil {
					errs[r] = w.Sum(make([]float32, 10_000), nil)
				}
				if again := w.Gather(nil, nil); again == nil {
					t.Errorf("rank %d works after the abort", r)
				}
				w.Abort(errors.New("fall-out"))
				if err := w.Close(); err == nil {
					t.Errorf("rank %d closes as if nothing had happened", r)
				}
			})
		}
		all.Wait()
		for r, err := range errs {
			var failed *dist.RankError
			if !errors.As(err, &failed) || failed.Rank != 2 || err.Error() != "rank 2 ended the job: the loss is not a number" {
				t.Errorf("rank %d: %v", r, err)
			}
		}
	}
}

// Ranks that call different things fail; they do not hang or take other bytes.
func TestRanksThatDiffer(t *testing.T) {
	for name, other := range map[string]func(w *dist.World) error{
		"another length": func(w *dist.World) error { return w.Gather(make([]float64, 2), make([]float64, 4)) },
		"leaves":         func(w *dist.World) error { return w.Close() },
	} {
		ranks := mesh(t, 2, nil)
		errs := make([]error, 2)
		var all sync.WaitGroup
		for r, tr := range ranks {
			w := dist.NewWorld(tr)
			all.Go(func() {
				if r == 1 {
					errs[r] = other(w)
				} else {
					errs[r] = w.Gather(make([]float64, 1), make([]float64, 2))
				}
				w.Close()
			})
		}
		all.Wait()
		if errs[0] == nil || !strings.Contains(errs[0].Error(), "do not run alike") {
			t.Errorf("%s: %v", name, errs)
		}
	}
}

// A rank that is busy for several times the silence is not lost, and bytes that take
// long are not either.
func TestSlowIsNotDead(t *testing.T) {
	t.Parallel()
	list := places(t, 2)
	list[1].Address = relay(t, list[0].Address, 30*time.Millisecond)
	ranks, errs := connect(t.Context(), list, &dist.Options{Silence: 500 * time.Millisecond})
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	onAll(t, ranks, func(w *dist.World) error {
		for range 2 {
			if w.Rank() == 1 {
				time.Sleep(1200 * time.Millisecond)
			}
			if err := gatherAndShare(w); err != nil {
				return err
			}
		}
		return w.Close()
	})
}

// relay passes connections on to an address, each byte a delay later.
func relay(t testing.TB, to string, delay time.Duration) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	type piece struct {
		at time.Time
		b  []byte
	}
	pass := func(dst, src net.Conn) {
		pieces := make(chan piece, 1000)
		go func() {
			defer close(pieces)
			for {
				b := make([]byte, 64<<10)
				n, err := src.Read(b)
				if err != nil {
					return
				}
				pieces <- piece{time.Now().Add(delay), b[:n]}
			}
		}()
		for p := range pieces {
			time.Sleep(time.Until(p.at))
			dst.Write(p.b)
		}
		dst.Close()
	}
	go func() {
		for {
			a, err := l.Accept()
			if err != nil {
				return
			}
			b, err := net.Dial("tcp", to)
			if err != nil {
				a.Close()
				continue
			}
			go pass(a, b)
			go pass(b, a)
		}
	}()
	return l.Addr().String()
}

// Host names and IPv6 are addresses too, and proxies of the environment are not used.
func TestAddresses(t *testing.T) {
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"} {
		t.Setenv(name, "http://127.0.0.1:1")
	}
	for _, host := range []string{"localhost", "::1", "0.0.0.0"} {
		if c, err := net.Listen("tcp", net.JoinHostPort(host, "0")); err != nil {
			t.Logf("%s is not to be had here: %v", host, err)
			continue
		} else {
			c.Close()
		}
		list := places(t, 3)
		_, port, _ := net.SplitHostPort(list[0].Address)
		for _, p := range list {
			p.Address = net.JoinHostPort(host, port)
		}
		ranks, errs := connect(t.Context(), list, nil)
		if err := errors.Join(errs...); err != nil {
			t.Errorf("%s: %v", host, err)
			continue
		}
		onAll(t, ranks, func(w *dist.World) error { return errors.Join(gatherAndShare(w), w.Close()) })
	}
}

// BenchmarkGather is the time of a Gather of 8 bytes a rank.
func BenchmarkGather(b *testing.B) {
	for _, size := range []int{2, 4} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			onAll(b, mesh(b, size, nil), func(w *dist.World) error {
				own, all := make([]float64, 1), make([]float64, size)
				for range b.N {
					if err := w.Gather(own, all); err != nil {
						return err
					}
				}
				return w.Close()
			})
		})
	}
}

// BenchmarkExchange is the rate of 4 MB from each rank to each other one; the rate
// counts what a rank sends.
func BenchmarkExchange(b *testing.B) {
	for _, size := range []int{2, 4} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			ranks := mesh(b, size, nil)
			b.SetBytes(int64(size-1) * 4 << 20)
			var all sync.WaitGroup
			for _, r := range ranks {
				all.Go(func() {
					send, recv := make([][]byte, size), make([][]byte, size)
					for i := range send {
						send[i], recv[i] = make([]byte, 4<<20), make([]byte, 4<<20)
					}
					for range b.N {
						if err := r.Exchange(send, recv); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			all.Wait()
			if err := closeAll(ranks); err != nil {
				b.Error(err)
			}
		})
	}
}

// BenchmarkSum is the time of the sum of 4 MB, exact and rounded.
func BenchmarkSum(b *testing.B) {
	for _, size := range []int{2, 4} {
		for _, name := range []string{"float32", "bfloat16"} {
			b.Run(fmt.Sprint(size, name), func(b *testing.B) {
				b.SetBytes(4 << 20)
				onAll(b, mesh(b, size, nil), func(w *dist.World) error {
					v, residual := make([]float32, 1<<20), make([]float32, 1<<20)
					if name == "float32" {
						residual = nil
					}
					for range b.N {
						if err := w.Sum(v, residual); err != nil {
							return err
						}
					}
					return w.Close()
				})
			})
		}
	}
}
