package audio

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"github.com/carousel-ml/carousel/internal/simd"
)

// The formats of a WAV file's samples.
const (
	wavPCM        = 1
	wavFloat      = 3
	wavALaw       = 6
	wavMuLaw      = 7
	wavExtensible = 0xfffe // the actual format comes later in the chunk
)

// wavFormat is the content of a fmt chunk.
type wavFormat struct {
	format   int
	channels int
	rate     int
	size     int // bytes of one sample of one channel
}

// unknownSize is the smallest size that means unknown: programs that write to a
// pipe do not know how much will follow.
const unknownSize = 0x7ffff000

// openWAV reads chunks up to the samples.
func (r *Reader) openWAV(b *bufio.Reader) error {
	var head [12]byte
	if _, err := io.ReadFull(b, head[:]); err != nil {
		return err
	}
	if string(head[8:]) != "WAVE" {
		return fmt.Errorf("is a RIFF file but not WAV: it says %q", head[8:])
	}
	var f *wavFormat
	long := int64(-1) // size of the data in an RF64 file
	whole, at := int64(binary.LittleEndian.Uint32(head[4:])), int64(4)
	for {
		id, size, err := chunk(b)
		if err == io.EOF {
			return fmt.Errorf("holds no samples: there is no data chunk")
		}
		if err != nil {
			return err
		}
		at += 8 + size + size%2
		switch id {
		case "data":
			if f == nil {
				return fmt.Errorf("is damaged: its samples come before their format")
			}
			if long >= 0 {
				size = long
			}
			r.Rate, r.Channels = f.rate, f.channels
			w := newWAV(b, f, size)
			if next, err := b.Peek(8); size == 0 && err == nil && at+chunkEnd(next) <= whole {
				w.left = 0 // the size 0 is real, as another chunk follows
			}
			if r.source = w; w.left >= 0 {
				r.Length = w.left / int64(f.channels*f.size)
			}
			return nil
		case "fmt ":
			if f, err = readFormat(b, size); err != nil {
				return err
			}
			continue
		case "ds64":
			var body [28]byte
			if size < int64(len(body)) {
				return fmt.Errorf("is damaged: a ds64 chunk of %d bytes", size)
			}
			if _, err := io.ReadFull(b, body[:]); err != nil {
				return err
			}
			if n := binary.LittleEndian.Uint64(body[8:]); n < math.MaxInt64 {
				long = int64(n)
			}
			size -= int64(len(body))
		}
		if _, err := io.CopyN(io.Discard, b, size+size%2); err != nil {
			return err
		}
	}
}

// chunkEnd returns the length of the chunk whose head is given, more than any
// file's if the bytes are not the head of a chunk.
func chunkEnd(head []byte) int64 {
	for _, c := range head[:4] {
		if c < ' ' || c > '~' {
			return math.MaxUint32 + 1
		}
	}
	return 8 + int64(binary.LittleEndian.Uint32(head[4:]))
}

// chunk reads the head of a chunk.
func chunk(b *bufio.Reader) (id string, size int64, err error) {
	var head [8]byte
	if _, err := io.ReadFull(b, head[:]); err != nil {
		return "", 0, err
	}
	return string(head[:4]), int64(binary.LittleEndian.Uint32(head[4:])), nil
}

func readFormat(b *bufio.Reader, size int64) (*wavFormat, error) {
	if size < 16 || size > 1<<16 {
		return nil, fmt.Errorf("is damaged: a format chunk of %d bytes", size)
	}
	body := make([]byte, size+size%2)
	if _, err := io.ReadFull(b, body); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	f := &wavFormat{format: int(le.Uint16(body)), channels: int(le.Uint16(body[2:])), rate: int(le.Uint32(body[4:]))}
	block, bits := int(le.Uint16(body[12:])), int(le.Uint16(body[14:]))
	if f.format == wavExtensible && size >= 40 {
		f.format = int(le.Uint16(body[24:]))
	}
	f.size = (bits + 7) / 8
	ok := false
	switch f.format {
	case wavPCM:
		ok = f.size >= 1 && f.size <= 4
	case wavFloat:
		ok = f.size == 4 || f.size == 8
	case wavALaw, wavMuLaw:
		ok = f.size == 1
	}
	switch {
	case !ok:
		return nil, fmt.Errorf("has samples of format %d with %d bits; want PCM of 8 to 32 bits, float, mu-law or A-law", f.format, bits)
	case f.channels == 0:
		return nil, fmt.Errorf("is damaged: it has no channel")
	case block != f.channels*f.size:
		return nil, fmt.Errorf("is damaged: %d channels of %d bits do not make blocks of %d bytes", f.channels, bits, block)
	}
	return f, nil
}

// wav decodes samples block by block, a block holding one sample of each channel.
type wav struct {
	r        *bufio.Reader
	channels int
	size     int
	left     int64 // remaining bytes; -1: until the end of the stream
	raw      []byte
	decode   func(b []byte) float32
}

func newWAV(b *bufio.Reader, f *wavFormat, size int64) *wav {
	w := &wav{r: b, channels: f.channels, size: f.size, left: size, decode: decoders[f.format][f.size]}
	if size == 0 || size >= unknownSize && size <= math.MaxUint32 {
		w.left = -1
	}
	return w
}

// mostAtOnce bounds the bytes of one read, whatever number of channels a header
// claims.
const mostAtOnce = 1 << 20

func (w *wav) read(dst []float32) (int, error) {
	block := w.channels * w.size
	want := int64(min(len(dst), max(1, mostAtOnce/block))) * int64(block)
	if w.left >= 0 {
		want = min(want, w.left-w.left%int64(block))
	}
	if want == 0 {
		return 0, io.EOF
	}
	if int64(cap(w.raw)) < want {
		w.raw = make([]byte, want)
	}
	raw := w.raw[:want]
	got, err := io.ReadFull(w.r, raw)
	switch {
	case err == nil:
	case w.left < 0 && (err == io.EOF || err == io.ErrUnexpectedEOF):
		err = io.EOF
	case err == io.EOF || err == io.ErrUnexpectedEOF:
		err = cut("ends %d bytes before its header says", w.left-int64(got))
	}
	if w.left >= 0 {
		w.left -= int64(got)
	}
	n := got / block
	share := 1 / float64(w.channels)
	for i := range n {
		var sum float64
		for c := range w.channels {
			at := i*block + c*w.size
			sum += float64(w.decode(raw[at : at+w.size]))
		}
		dst[i] = simd.Narrow(sum * share)
	}
	return n, err
}

// decoders turn one sample's bytes into a number, by format and size.
var decoders = map[int]map[int]func(b []byte) float32{
	wavPCM: {
		1: func(b []byte) float32 { return (float32(b[0]) - 128) / 128 },
		2: func(b []byte) float32 { return float32(int16(binary.LittleEndian.Uint16(b))) / (1 << 15) },
		3: func(b []byte) float32 {
			return float32(int32(uint32(b[0])<<8|uint32(b[1])<<16|uint32(b[2])<<24)>>8) / (1 << 23)
		},
		4: func(b []byte) float32 { return float32(float64(int32(binary.LittleEndian.Uint32(b))) / (1 << 31)) },
	},
	wavFloat: {
		4: func(b []byte) float32 { return simd.Flush(math.Float32frombits(binary.LittleEndian.Uint32(b))) },
		8: func(b []byte) float32 {
			bits := binary.LittleEndian.Uint64(b)
			if bits&(0x7ff<<52) < (1023-126)<<52 { // below 2^-126, as simd.Flush
				return 0
			}
			return float32(math.Float64frombits(bits))
		},
	},
	wavALaw:  {1: func(b []byte) float32 { return aLaw(b[0]) }},
	wavMuLaw: {1: func(b []byte) float32 { return muLaw(b[0]) }},
}

// muLaw decodes ITU-T G.711 mu-law: 14 bits, in steps that double.
func muLaw(b byte) float32 {
	b = ^b
	v := (int(b&15)<<3+132)<<(b>>4&7) - 132
	if b&128 != 0 {
		v = -v
	}
	return float32(v) / (1 << 15)
}

// aLaw decodes ITU-T G.711 A-law: 13 bits, every second bit inverted.
func aLaw(b byte) float32 {
	b ^= 0x55
	v := int(b&15)<<4 + 8
	if e := b >> 4 & 7; e > 0 {
		v = (v + 256) << (e - 1)
	}
	if b&128 == 0 {
		v = -v
	}
	return float32(v) / (1 << 15)
}

// WriteWAV writes s as 16 bit PCM; values beyond full scale are clipped. It
// returns an error if s is too long for a WAV file, or w's error.
func WriteWAV(w io.Writer, s *Sound) error {
	size := 2 * len(s.Samples)
	if size > math.MaxInt32 {
		return fmt.Errorf("audio: a sound of %d samples is too long for a WAV file", len(s.Samples))
	}
	b := appendPCM(wavHeader(make([]byte, 0, wavHeaderSize+size), s.Rate, uint32(size)), s.Samples)
	_, err := w.Write(b)
	return err
}

// WAVWriter writes sound while it arrives, as [WriteWAV] does.
type WAVWriter struct {
	w    io.Writer
	rate int
	size int64
	buf  []byte
}

// NewWAVWriter writes a header for rate samples per second, in which the length is
// unknown. It returns w's error.
func NewWAVWriter(w io.Writer, rate int) (*WAVWriter, error) {
	out := &WAVWriter{w: w, rate: rate}
	_, err := w.Write(wavHeader(nil, rate, math.MaxUint32))
	return out, err
}

// Write writes samples. It returns the error of the writer below.
func (w *WAVWriter) Write(samples []float32) error {
	w.buf = appendPCM(w.buf[:0], samples)
	w.size += int64(len(w.buf))
	_, err := w.w.Write(w.buf)
	return err
}

// Close sets the length in the header, if the writer below is an [io.WriterAt] that
// began with it and a WAV header can hold the length; otherwise it stays unknown, which
// readers take as all that follows. It returns the error of that writer, which stays open.
func (w *WAVWriter) Close() error {
	at, ok := w.w.(io.WriterAt)
	if !ok || w.size > math.MaxUint32-wavHeaderSize {
		return nil
	}
	_, err := at.WriteAt(wavHeader(nil, w.rate, uint32(w.size)), 0)
	return err
}

const wavHeaderSize = 44

// wavHeader appends the header of 16 bit PCM in one channel with size bytes of samples;
// the largest number means that their number is not known.
func wavHeader(b []byte, rate int, size uint32) []byte {
	le := binary.LittleEndian
	b = append(b, "RIFF"...)
	b = append(le.AppendUint32(b, uint32(min(uint64(size)+wavHeaderSize-8, math.MaxUint32))), "WAVEfmt "...)
	b = le.AppendUint32(b, 16)
	b = le.AppendUint16(b, wavPCM)
	b = le.AppendUint16(b, 1)
	b = le.AppendUint32(b, uint32(rate))
	b = le.AppendUint32(b, uint32(2*rate))
	b = le.AppendUint16(b, 2)
	b = le.AppendUint16(b, 16)
	return le.AppendUint32(append(b, "data"...), size)
}

func appendPCM(b []byte, samples []float32) []byte {
	for _, v := range samples {
		b = binary.LittleEndian.AppendUint16(b, uint16(int16(math.RoundToEven(float64(min(max(v*(1<<15), -1<<15), 1<<15-1))))))
	}
	return b
}
