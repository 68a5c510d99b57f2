package audio_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/audio"
	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/golden"
	"github.com/carousel-ml/carousel/model"
)

func cases(t *testing.T, name string) []*golden.Case {
	t.Helper()
	cs, err := golden.Load(name)
	if err != nil {
		t.Fatal(err)
	}
	return cs
}

// Files that libsndfile wrote give the samples that libsndfile reads.
func TestFiles(t *testing.T) {
	for _, c := range cases(t, "files") {
		var s struct{ Rate, Channels int }
		if err := c.Settings(&s); err != nil {
			t.Fatal(err)
		}
		sound, err := audio.Read(filepath.Join("testdata", c.Name))
		if err != nil {
			t.Error(err)
			continue
		}
		want := c.Tensor("y").Data
		if sound.Rate != s.Rate || len(sound.Samples) != len(want) {
			t.Errorf("%s: %d samples at %d Hz, want %d at %d", c.Name, len(sound.Samples), sound.Rate, len(want), s.Rate)
			continue
		}
		for i, v := range sound.Samples {
			if math.Abs(float64(v-want[i])) > 1e-7 {
				t.Errorf("%s: sample %d is %v, want %v", c.Name, i, v, want[i])
				break
			}
		}
	}
}

func TestFeatures(t *testing.T) {
	for _, c := range cases(t, "features") {
		var s audio.Spec
		if err := c.Settings(&s); err != nil {
			t.Fatal(err)
		}
		x, want := c.Tensor("x").Data, c.Tensor("y").Data
		got := audio.Extract(&audio.Sound{Rate: s.Rate, Samples: x}, s)
		if len(got) != len(want) {
			t.Errorf("%s: %d numbers, want %d", c.Name, len(got), len(want))
			continue
		}
		worst := 0.0
		for i, v := range got {
			worst = max(worst, math.Abs(float64(v-want[i])))
		}
		if !(worst < 1e-4) {
			t.Errorf("%s: differs by %v", c.Name, worst)
		}
	}
}

// Pieces of any size give the same bits.
func TestFeaturesInPieces(t *testing.T) {
	for _, c := range cases(t, "features") {
		var s audio.Spec
		if err := c.Settings(&s); err != nil {
			t.Fatal(err)
		}
		x := c.Tensor("x").Data
		want := audio.Extract(&audio.Sound{Rate: s.Rate, Samples: x}, s)
		e := audio.NewExtractor(s)
		var got []float32
		for size := 1; len(x) > 0; size = size*3%509 + 1 {
			n := min(size, len(x))
			got = e.Write(got, x[:n])
			x = x[n:]
		}
		got = e.Flush(got)
		if len(got) != len(want) {
			t.Fatalf("%s: %d numbers in pieces, %d at once", c.Name, len(got), len(want))
		}
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("%s: number %d is %v in pieces, %v at once", c.Name, i, got[i], want[i])
			}
		}
	}
}

// tone is a sine of the given frequency in Hz.
func tone(hz float64, rate, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(math.Sin(2 * math.Pi * hz * float64(i) / float64(rate)))
	}
	return x
}

// A tone below both Nyquist frequencies is the same tone at the other rate; one
// above the lower is gone.
func TestResample(t *testing.T) {
	for _, c := range []struct{ from, to int }{
		{44100, 16000}, {48000, 16000}, {8000, 16000}, {22050, 8000}, {16000, 44100}, {16001, 16000}, {44100, 15999}, {16000, 16000},
	} {
		n := c.from / 5
		for _, hz := range []float64{300, 0.4 * float64(min(c.from, c.to)), 0.56 * float64(min(c.from, c.to))} {
			if hz > float64(c.from)/2 {
				continue
			}
			s := &audio.Sound{Rate: c.from, Samples: tone(hz, c.from, n)}
			got := s.Resample(c.to).Samples
			if want := (n*c.to + c.from - 1) / c.from; len(got) != want {
				t.Errorf("%v: %d samples, want %d", c, len(got), want)
			}
			want := tone(hz, c.to, len(got))
			if hz > float64(c.to)/2 {
				clear(want)
			}
			edge := len(got) / 8 // where the silence outside is heard
			for i := edge; i < len(got)-edge; i++ {
				if math.Abs(float64(got[i]-want[i])) > 2e-4 {
					t.Errorf("%v: tone of %v Hz: sample %d is %v, want %v", c, hz, i, got[i], want[i])
					break
				}
			}
		}
	}
}

func TestResampleInPieces(t *testing.T) {
	x := tone(700, 44100, 9000)
	want := (&audio.Sound{Rate: 44100, Samples: x}).Resample(16000).Samples
	r := audio.NewResampler(44100, 16000)
	var got []float32
	for size := 1; len(x) > 0; size = size*5%701 + 1 {
		n := min(size, len(x))
		got = r.Write(got, x[:n])
		x = x[n:]
	}
	got = r.Flush(got)
	if len(got) != len(want) {
		t.Fatalf("%d samples in pieces, %d at once", len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("sample %d is %v in pieces, %v at once", i, got[i], want[i])
		}
	}
}

func TestWriteWAV(t *testing.T) {
	var b bytes.Buffer
	s := &audio.Sound{Rate: 8000, Samples: []float32{0, 0.5, -1, 1, 1.5, -0.25}}
	if err := audio.WriteWAV(&b, s); err != nil {
		t.Fatal(err)
	}
	r, err := audio.NewReader(&b, "x.wav")
	if err != nil {
		t.Fatal(err)
	}
	got := make([]float32, 10)
	n, err := r.Read(got)
	if err != nil || n != 6 {
		t.Fatalf("%d samples, %v", n, err)
	}
	for i, want := range []float32{0, 0.5, -1, 32767. / 32768, 32767. / 32768, -0.25} {
		if got[i] != want {
			t.Errorf("sample %d is %v, want %v", i, got[i], want)
		}
	}
	if n, err := r.Read(got); n != 0 || err != io.EOF {
		t.Errorf("after the end: %d, %v", n, err)
	}
}

// A sound that is written in pieces is the same file, or in a pipe the same sound.
func TestWAVWriter(t *testing.T) {
	s := &audio.Sound{Rate: 8000, Samples: tone(300, 8000, 1000)}
	var want, pipe bytes.Buffer
	if err := audio.WriteWAV(&want, s); err != nil {
		t.Fatal(err)
	}
	in := func(w io.Writer) error {
		out, err := audio.NewWAVWriter(w, s.Rate)
		for i := 0; i < len(s.Samples) && err == nil; i += 300 {
			err = out.Write(s.Samples[i:min(i+300, len(s.Samples))])
		}
		return errors.Join(err, out.Close())
	}
	path := filepath.Join(t.TempDir(), "x.wav")
	if err := errors.Join(in(&pipe), model.WriteFileAtomic(path, in)); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want.Bytes()) {
		t.Errorf("the file differs, or %v", err)
	}
	r, err := audio.NewReader(&pipe, "pipe")
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.ReadAll()
	if err != nil || len(got.Samples) != len(s.Samples) || r.Rate != s.Rate {
		t.Errorf("from a pipe: %v", err)
	}
}

// wavBytes is 16 bit PCM at 8 kHz with four samples, and what to change of it.
func wavBytes(t *testing.T, change func(b []byte) []byte) []byte {
	var b bytes.Buffer
	if err := audio.WriteWAV(&b, &audio.Sound{Rate: 8000, Samples: []float32{0.1, 0.2, 0.3, 0.4}}); err != nil {
		t.Fatal(err)
	}
	return change(b.Bytes())
}

func TestBadFiles(t *testing.T) {
	put16 := func(at int, v uint16) func(b []byte) []byte {
		return func(b []byte) []byte { binary.LittleEndian.PutUint16(b[at:], v); return b }
	}
	dir := t.TempDir()
	for _, c := range []struct {
		content []byte
		want    string
	}{
		{nil, "is empty"},
		{[]byte("OggS and so on"), "is not WAV or FLAC, it looks like Ogg; give WAV or FLAC"},
		{[]byte("audio,text\na.wav,hello\n"), "is not WAV or FLAC; give"},
		{[]byte("RIFF\x00\x00\x00\x00AVI LIST"), `is a RIFF file but not WAV: it says "AVI "`},
		{[]byte("RIFF"), "ends in the middle"},
		{wavBytes(t, func(b []byte) []byte { return b[:30] }), "ends in the middle"},
		{wavBytes(t, func(b []byte) []byte { return b[:36] }), "holds no samples: there is no data chunk"},
		{wavBytes(t, func(b []byte) []byte { return b[:len(b)-3] }), "ends 3 bytes before its header says; copy or record it again"},
		{wavBytes(t, func(b []byte) []byte { // no sound, and then a chunk of comments
			binary.LittleEndian.PutUint32(b[40:], 0)
			binary.LittleEndian.PutUint32(b[4:], 36+12)
			return append(b[:44], "LIST\x04\x00\x00\x00INFO"...)
		}), "holds no sound: its length is zero"},
		{wavBytes(t, func(b []byte) []byte { binary.LittleEndian.PutUint32(b[40:], 0); return b[:44] }), "holds no sound: its length is zero"},
		{wavBytes(t, put16(20, 2)), "has samples of format 2 with 16 bits; want PCM"},
		{wavBytes(t, put16(22, 0)), "it has no channel"},
		{wavBytes(t, put16(32, 3)), "1 channels of 16 bits do not make blocks of 3 bytes"},
		{wavBytes(t, put16(24, 5)), "has a sample rate of 5 Hz"},
		{[]byte("fLaC\x00\x00\x00\x22"), "ends in the middle"},
		{[]byte("fLaC\x80\x00\x00\x22" + strings.Repeat("\x00", 34)), "damaged"},
	} {
		path := filepath.Join(dir, "x.wav")
		if err := os.WriteFile(path, c.content, 0o666); err != nil {
			t.Fatal(err)
		}
		_, err := audio.Read(path)
		var input *data.InputError
		if !errors.As(err, &input) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: got %v, want %q", c.content, err, c.want)
		}
	}
	if _, err := audio.Read(filepath.Join(dir, "none.wav")); err == nil || !strings.Contains(err.Error(), "there is no such file") {
		t.Errorf("missing file: %v", err)
	}
	if _, err := audio.Read(dir); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("directory: %v", err)
	}
}

// A reader of a file has the length of its header, and is closed by the caller.
func TestOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.wav")
	if err := os.WriteFile(path, wavBytes(t, func(b []byte) []byte { return b }), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := audio.Open(path)
	if err != nil || r.Length != 4 {
		t.Fatalf("length %d, want 4; %v", r.Length, err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := r.Read(make([]float32, 1<<17)); err != nil && !strings.Contains(err.Error(), "x.wav") {
		t.Errorf("after Close: %v", err)
	}
}

// The headers that programs write to pipes do not know the length.
func TestPipedHeader(t *testing.T) {
	for _, size := range []uint32{0, 0x7ffff000, 0xffffffff} {
		b := wavBytes(t, func(b []byte) []byte { binary.LittleEndian.PutUint32(b[40:], size); return b })
		r, err := audio.NewReader(bytes.NewReader(b), "-")
		if err != nil {
			t.Fatal(err)
		}
		got := make([]float32, 9)
		if n, err := r.Read(got); n != 4 || err != io.EOF || r.Length != -1 {
			t.Errorf("size %#x: %d samples, length %d, %v; want 4, unknown and the end", size, n, r.Length, err)
		}
	}
}

// A header's number of channels does not decide how much memory a read takes.
func TestManyChannels(t *testing.T) {
	const channels = 65535
	b := wavBytes(t, func(b []byte) []byte {
		le := binary.LittleEndian
		le.PutUint16(b[22:], channels)
		le.PutUint16(b[32:], 0xffff) // block of one byte each
		le.PutUint16(b[34:], 8)
		le.PutUint32(b[40:], 0xffffffff)
		return append(b[:44], make([]byte, 3*channels)...)
	})
	r, err := audio.NewReader(bytes.NewReader(b), "-")
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	s, err := r.ReadAll()
	runtime.ReadMemStats(&after)
	if err != nil || len(s.Samples) != 3 || s.Samples[0] != -1 {
		t.Errorf("%v, %v", s, err)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 16<<20 {
		t.Errorf("took %d bytes of memory", took)
	}
}

// FuzzRead: any bytes give samples or an error, in memory proportional to their number.
func FuzzRead(f *testing.F) {
	files, err := filepath.Glob("testdata/*.[wf]*a[vc]")
	if err != nil || len(files) == 0 {
		f.Fatal("no seeds", err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		samples := 0
		var before runtime.MemStats
		runtime.ReadMemStats(&before)
		defer func() {
			var after runtime.MemStats
			runtime.ReadMemStats(&after)
			if took := after.TotalAlloc - before.TotalAlloc; took > uint64(16<<20+100*(len(b)+samples)) {
				t.Errorf("%d bytes were allocated for a file of %d and %d samples", took, len(b), samples)
			}
		}()
		r, err := audio.NewReader(bytes.NewReader(b), "fuzz")
		if err != nil {
			return
		}
		buf := make([]float32, 100)
		for {
			n, err := r.Read(buf)
			samples += n
			for _, v := range buf[:n] {
				if v-v != 0 {
					t.Fatal("a sample is not finite")
				}
			}
			if err != nil {
				return
			}
		}
	})
}

func BenchmarkExtract(b *testing.B) {
	s := &audio.Sound{Rate: 16000, Samples: tone(440, 16000, 16000)}
	spec := audio.Spec{Rate: 16000, Window: 400, Hop: 160, Bands: 80}
	for b.Loop() {
		audio.Extract(s, spec)
	}
}

// FuzzRaw: any bytes without a header are a sample each two, in pieces of any size.
func FuzzRaw(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3}, uint8(1))
	f.Add([]byte{0, 128, 255}, uint8(7))
	f.Fuzz(func(t *testing.T, b []byte, piece uint8) {
		r, err := audio.NewRawReader(bytes.NewReader(b), "stdin", 8000)
		if err != nil {
			t.Fatal(err)
		}
		dst := make([]float32, 1+int(piece))
		n := 0
		for {
			got, err := r.Read(dst)
			for i, v := range dst[:got] {
				at := 2 * (n + i)
				if want := float32(int16(uint16(b[at])|uint16(b[at+1])<<8)) / 32768; v != want {
					t.Fatalf("sample %d is %v, want %v", n+i, v, want)
				}
			}
			n += got
			if err != nil {
				break
			}
			if got == 0 {
				t.Fatal("no sample and no error")
			}
		}
		if n != len(b)/2 {
			t.Fatalf("%d samples of %d bytes", n, len(b))
		}
	})
}
