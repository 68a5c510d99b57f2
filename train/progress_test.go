package train

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// clocked is a Progress whose time the test moves.
func clocked(width int) (p *Progress, out *bytes.Buffer, tick func(time.Duration)) {
	now := time.Unix(1000, 0)
	out = new(bytes.Buffer)
	p = &Progress{W: out, now: func() time.Time { return now }}
	if width > 0 {
		p.Width = func() int { return width }
	}
	return p, out, func(d time.Duration) { now = now.Add(d) }
}

func TestPlainLines(t *testing.T) {
	p, out, tick := clocked(0)
	p.start(plan{epochs: 4, steps: 40, perStep: 32, metric: "mae"}, 0)
	for step := 1; step <= 40; step++ {
		tick(time.Second / 2)
		loss := 1 / float64(step)
		if step%2 == 0 {
			loss = math.NaN() // not read
		}
		p.step((step-1)/10+1, step, loss)
		if step%10 == 0 {
			p.epoch(&Record{Epoch: step / 10, Step: step, TrainLoss: 0.5, Val: map[string]float64{"mae": 2.25, "mse": 9}})
		}
	}
	p.finish(&Result{Epochs: 4, Steps: 40, Elapsed: 187 * time.Second, Stopped: StopEpochs, Best: &Record{Epoch: 3, Val: map[string]float64{"mae": 2.25}}}, "mae")
	want := `epoch 1/4  step 10/40  64 samples/s  loss 0.1111  15s left
epoch 1/4  step 10/40  64 samples/s  loss 0.5  val_mae 2.25  15s left
epoch 2/4  step 20/40  64 samples/s  loss 0.05263  val_mae 2.25  10s left
epoch 3/4  step 30/40  64 samples/s  loss 0.03448  val_mae 2.25  5s left
epoch 4/4  step 40/40  64 samples/s  loss 0.02564  val_mae 2.25  0s left
4 epochs, 40 steps in 3m07s (stopped by: epochs); best val_mae 2.25 at epoch 3
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out, want)
	}
}

func TestBar(t *testing.T) {
	p, out, tick := clocked(72)
	p.start(plan{epochs: 2, steps: 40, perStep: 4, metric: "mae"}, 20) // resumed half way
	for step := 21; step <= 30; step++ {
		tick(50 * time.Millisecond)
		p.step(2, step, 0.125)
	}
	drawn := strings.Split(out.String(), "\r")[1:]
	if len(drawn) != 5 {
		t.Errorf("drawn %d times in half a second: %q", len(drawn), drawn)
	}
	if want := "epoch 2/2 [==================      ]  75%  80 samples/s  loss 0.125  1s\x1b[K"; drawn[4] != want[:71]+"\x1b[K" && drawn[4] != want {
		t.Errorf("got %q", drawn[4])
	}
	for _, d := range drawn {
		if n := len(strings.TrimSuffix(d, "\x1b[K")); n > 71 {
			t.Errorf("%d columns of 72", n)
		}
	}
	out.Reset()
	p.finish(&Result{Epochs: 2, Steps: 30, Elapsed: time.Second, Stopped: StopInterrupted}, "")
	if want := "\r\x1b[K2 epochs, 30 steps in 1s (stopped by: interrupted)\n"; out.String() != want {
		t.Errorf("got %q", out)
	}
}

// TestTimeLeft wants the budget to win where it ends sooner, and silence where nothing is known.
func TestTimeLeft(t *testing.T) {
	for _, c := range []struct {
		plan plan
		left time.Duration
		ok   bool
		done float64
	}{
		{plan{steps: 100}, 90 * time.Second, true, 0.1},
		{plan{steps: 100, limit: 40 * time.Second}, 30 * time.Second, true, 0.25},
		{plan{limit: 20 * time.Second}, 10 * time.Second, true, 0.5},
		{plan{}, 0, false, -1},
	} {
		p, _, _ := clocked(0)
		p.start(c.plan, 0)
		left, ok := p.left(10, 10*time.Second)
		if left != c.left || ok != c.ok || p.done(10, 10*time.Second) != c.done {
			t.Errorf("%+v: %v %v, done %v", c.plan, left, ok, p.done(10, 10*time.Second))
		}
	}
	for d, want := range map[time.Duration]string{0: "0s", 59600 * time.Millisecond: "1m00s", 185 * time.Second: "3m05s", 7500 * time.Second: "2h05m"} {
		if clock(d) != want {
			t.Errorf("%v is %s, want %s", d, clock(d), want)
		}
	}
}

func TestQuiet(t *testing.T) {
	var p *Progress
	p.start(plan{}, 0)
	p.step(1, 1, 1)
	p.epoch(&Record{})
	p.finish(&Result{}, "")
	f, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if NewProgress(f).Width != nil {
		t.Error("a file is taken for a terminal")
	}
}

// TestFitShowsProgress also runs the whole of it under a real clock.
func TestFitShowsProgress(t *testing.T) {
	var out bytes.Buffer
	job, o := newJob(16), newOptions()
	o.Progress = &Progress{W: &out, Every: time.Hour}
	fit(t, job, o)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 || !strings.HasPrefix(lines[0], "epoch 1/5  step 2/10  ") || !strings.Contains(lines[0], "  val_mse ") || !strings.HasPrefix(lines[1], "5 epochs, 10 steps in ") {
		t.Errorf("%q", lines)
	}
}

// point is one decoded scalar.
type point struct {
	tag  string
	step int64
	v    float32
}

// readEvents decodes an event file with the protobuf module's own wire reader.
func readEvents(t *testing.T, path string) (version string, starts []int64, points []point) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	check := func(data []byte, masked uint32) {
		rot := masked - 0xa282ead8
		if crc := rot>>17 | rot<<15; crc != crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)) {
			t.Fatalf("checksum of %d bytes is wrong", len(data))
		}
	}
	for len(b) > 0 {
		n := binary.LittleEndian.Uint64(b)
		check(b[:8], binary.LittleEndian.Uint32(b[8:]))
		msg := b[12 : 12+n]
		check(msg, binary.LittleEndian.Uint32(b[12+n:]))
		b = b[16+n:]
		var step int64
		var summary []byte
		for len(msg) > 0 {
			num, typ, k := protowire.ConsumeTag(msg)
			if k < 0 {
				t.Fatal(protowire.ParseError(k))
			}
			msg = msg[k:]
			m := protowire.ConsumeFieldValue(num, typ, msg)
			if m < 0 {
				t.Fatal(protowire.ParseError(m))
			}
			switch num {
			case 1:
				bits, _ := protowire.ConsumeFixed64(msg)
				if wall := math.Float64frombits(bits); math.Abs(wall-float64(time.Now().Unix())) > 60 {
					t.Errorf("wall time %v", wall)
				}
			case 2:
				v, _ := protowire.ConsumeVarint(msg)
				step = int64(v)
			case 3:
				version, _ = protowire.ConsumeString(msg)
			case 5:
				summary, _ = protowire.ConsumeBytes(msg)
			case 7:
				starts = append(starts, step)
			}
			msg = msg[m:]
		}
		if summary != nil {
			points = append(points, decodePoint(t, summary, step))
		}
	}
	return version, starts, points
}

func decodePoint(t *testing.T, summary []byte, step int64) point {
	num, typ, k := protowire.ConsumeTag(summary)
	value, _ := protowire.ConsumeBytes(summary[k:])
	if num != 1 || typ != protowire.BytesType {
		t.Fatalf("summary begins with field %d", num)
	}
	_, _, k = protowire.ConsumeTag(value)
	tag, n := protowire.ConsumeString(value[k:])
	num, typ, j := protowire.ConsumeTag(value[k+n:])
	bits, m := protowire.ConsumeFixed32(value[k+n+j:])
	if num != 2 || typ != protowire.Fixed32Type || k+n+j+m != len(value) {
		t.Fatalf("value of %s is not a float", tag)
	}
	return point{tag, step, math.Float32frombits(bits)}
}

func TestEventFiles(t *testing.T) {
	job, o := newJob(16), newOptions()
	o.Dir, o.TensorBoard, o.Epochs = t.TempDir(), true, 3
	r := fit(t, job, o)
	job, o.Resume, o.Epochs = newJob(16), true, 5
	r2 := fit(t, job, o)
	files, _ := filepath.Glob(filepath.Join(o.Dir, "tensorboard", "events.out.tfevents.*"))
	if len(files) != 2 {
		t.Fatalf("files %v", files)
	}
	raw, _ := os.ReadFile(files[0])
	// The first 13 bytes of the files that TensorFlow itself writes: 24 bytes follow, and their checksum.
	if want := "\x18\x00\x00\x00\x00\x00\x00\x00\xa3\x7fK\"\t"; string(raw[:13]) != want {
		t.Errorf("begins with %q, want %q", raw[:13], want)
	}
	version, starts, points := readEvents(t, files[0])
	if version != "brain.Event:2" || len(starts) != 1 || starts[0] != 0 {
		t.Errorf("version %q, starts %v", version, starts)
	}
	want := map[string]int{"train/loss": 6, "train/grad_norm": 6, "train/lr": 6, "epoch/loss": 3, "val/mse": 3, "val/rows": 3}
	for _, p := range points {
		want[p.tag]--
		if p.tag == "val/mse" && p.v != float32(r.History[p.step/2-1].Val["mse"]) {
			t.Errorf("%+v", p)
		}
	}
	for tag, n := range want {
		if n != 0 {
			t.Errorf("%s has %d points too few", tag, n)
		}
	}
	_, starts, points = readEvents(t, files[1])
	if len(starts) != 1 || starts[0] != 6 || points[0].step != 7 {
		t.Errorf("the resumed file starts at %v, %+v", starts, points[0])
	}
	if last := points[len(points)-1]; last.step != int64(r2.Steps) {
		t.Errorf("ends with %+v", last)
	}
}

func TestProgressAbout(t *testing.T) {
	var b strings.Builder
	(&Progress{W: &b}).about("a.csv: 7 rows", 42)
	if want := "a.csv: 7 rows; 42 weights\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}
