// Package audio reads sound files, resamples them, and computes the spectral
// features of speech recognition: log-mel bands and MFCC.
//
// [Read] accepts WAV (PCM of 8 to 32 bits, float, mu-law and A-law) and FLAC of
// any rate and number of channels; [NewReader] reads them from a pipe. Faults
// of a file are a *data.InputError. Samples nearer to zero than 2^-126, which
// occur in floating-point sound that fades out, are read as zero.
package audio

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"

	"github.com/carousel-ml/carousel/data"
)

// Sound is one channel of sound in memory.
type Sound struct {
	Rate    int       // samples per second
	Samples []float32 // full scale is -1 to 1
}

// Seconds returns the duration of the sound in seconds.
func (s *Sound) Seconds() float64 { return float64(len(s.Samples)) / float64(s.Rate) }

// Accepted sample rates; any other value in a header is damage.
const (
	minRate = 100
	maxRate = 1_000_000
)

// Reader returns the samples of a sound as they arrive, averaged over the
// channels.
type Reader struct {
	Rate     int   // samples per second
	Channels int   // of the source
	Length   int64 // samples in all, as the header says; -1 if it does not

	name   string
	file   *os.File // nil for a stream
	source source
}

// source decodes samples, averaged over the channels. At the end it returns
// io.EOF, with or after the last samples.
type source interface {
	read(dst []float32) (int, error)
}

// NewReader reads a header, of WAV or FLAC. Messages call the sound name. The
// sizes in a header that was written to a pipe (0, or the maximum) mean that
// the sound ends with the stream.
//
// It returns a [*data.InputError] if r cannot be read, is neither WAV nor FLAC,
// or its header is damaged.
func NewReader(r io.Reader, name string) (*Reader, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	head, err := b.Peek(12)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, unreadable(name, err)
	}
	rd := &Reader{Length: -1, name: name}
	switch {
	case len(head) == 0:
		return nil, &data.InputError{File: name, Problem: "is empty", Fix: accepted}
	case bytes.HasPrefix(head, []byte("fLaC")):
		err = rd.openFLAC(b)
	case bytes.HasPrefix(head, []byte("RIFF")), bytes.HasPrefix(head, []byte("RF64")):
		err = rd.openWAV(b)
	default:
		return nil, &data.InputError{File: name, Problem: "is not WAV or FLAC" + looksLike(head), Fix: accepted}
	}
	if err != nil {
		return nil, rd.fault(err)
	}
	if rd.Rate < minRate || rd.Rate > maxRate {
		return nil, &data.InputError{File: name, Problem: fmt.Sprintf("has a sample rate of %d Hz, want %d to %d", rd.Rate, minRate, maxRate), Fix: "its header is damaged"}
	}
	return rd, nil
}

// NewRawReader reads sound without a header: 16 bit little-endian samples of
// one channel, rate samples per second. It returns a [*data.InputError] if rate
// is out of range.
func NewRawReader(r io.Reader, name string, rate int) (*Reader, error) {
	if rate < minRate || rate > maxRate {
		return nil, data.Errorf("sample rate: want %d to %d Hz, got %d", minRate, maxRate, rate)
	}
	f := &wavFormat{format: wavPCM, channels: 1, rate: rate, size: 2}
	return &Reader{Rate: rate, Channels: 1, Length: -1, name: name, source: newWAV(bufio.NewReaderSize(r, 64<<10), f, 0)}, nil
}

const accepted = "give WAV or FLAC (ffmpeg -i FILE out.wav converts others)"

// looksLike guesses a file's format from its first bytes.
func looksLike(head []byte) string {
	for _, k := range []struct{ magic, name string }{
		{"OggS", "Ogg"}, {"ID3", "MP3"}, {"\xff\xfb", "MP3"}, {"\xff\xf3", "MP3"}, {"FORM", "AIFF"}, {".snd", "Sun audio"},
		{"RIFX", "big-endian WAV"}, {"\x1f\x8b", "gzip"}, {"PK", "a zip archive"}, {"\x93NUMPY", "a NumPy array"}, {"caff", "Core Audio"},
	} {
		if bytes.HasPrefix(head, []byte(k.magic)) {
			return ", it looks like " + k.name
		}
	}
	if len(head) >= 8 && string(head[4:8]) == "ftyp" {
		return ", it looks like MP4"
	}
	return ""
}

// Read fills dst with samples (full scale is -1 to 1) and returns their number;
// io.EOF follows the last. Every other error is a [*data.InputError]: damaged,
// truncated or not finite samples, or a failure to read.
func (r *Reader) Read(dst []float32) (int, error) {
	n, err := r.source.read(dst)
	for i, v := range dst[:n] {
		if v-v != 0 {
			return i, &data.InputError{File: r.name, Problem: "holds a sample that is not a finite number", Fix: "convert it to 16 bit PCM"}
		}
	}
	if err != nil && err != io.EOF {
		return n, r.fault(err)
	}
	return n, err
}

// fault turns an error of decoding into an InputError.
func (r *Reader) fault(err error) error {
	var input *data.InputError
	if !errors.As(err, &input) && (errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF)) {
		err = cut("ends in the middle")
	}
	if errors.As(err, &input) {
		named := *input
		named.File = r.name
		return &named
	}
	return &data.InputError{File: r.name, Problem: err.Error(), Fix: "convert it with ffmpeg or sox"}
}

// cut returns the error for a sound that ends too soon.
func cut(format string, args ...any) error {
	return &data.InputError{Problem: fmt.Sprintf(format, args...), Fix: "copy or record it again"}
}

// Read reads a whole file. Its errors are those of [Open] and [Reader.ReadAll].
func Read(path string) (*Sound, error) {
	r, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return r.ReadAll()
}

// Open opens a file and reads its header. It returns a [*data.InputError] if the file
// cannot be read, and where [NewReader] does.
func Open(path string) (*Reader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, unreadable(path, err)
	}
	if info, err := f.Stat(); err == nil && info.IsDir() {
		f.Close()
		return nil, &data.InputError{File: path, Problem: "is a directory, want a sound file"}
	}
	r, err := NewReader(f, path)
	if err != nil {
		f.Close()
		return nil, err
	}
	r.file = f
	return r, nil
}

// Close closes the file of [Open]; it does nothing for other readers. The error is that
// of the file.
func (r *Reader) Close() error {
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}

// ReadAll reads the remaining samples. Its errors are those of [Reader.Read]; a
// sound without any sample is one too.
func (r *Reader) ReadAll() (*Sound, error) { return r.ReadMost(math.MaxInt) }

// ReadMost is ReadAll for a sound that may be hostile: one of more than most samples is a
// [*data.InputError], and no more memory is taken for it. FLAC holds 65,535 equal samples
// in 14 bytes.
func (r *Reader) ReadMost(most int) (*Sound, error) {
	s := &Sound{Rate: r.Rate}
	buf := make([]float32, 8192)
	for {
		n, err := r.Read(buf)
		if n > most-len(s.Samples) {
			return nil, &data.InputError{File: r.name, Problem: fmt.Sprintf("has more than %d samples, which is too much for its size", most), Fix: "cut it into parts, or send it as WAV"}
		}
		s.Samples = append(s.Samples, buf[:n]...)
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	if len(s.Samples) == 0 {
		return nil, &data.InputError{File: r.name, Problem: "holds no sound: its length is zero"}
	}
	return s, nil
}

// unreadable turns a failure to open or read into an InputError.
func unreadable(path string, err error) error {
	var p *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &data.InputError{File: path, Problem: "there is no such file"}
	case errors.As(err, &p):
		err = p.Err
	}
	return &data.InputError{File: path, Problem: fmt.Sprintf("cannot be read: %v", err)}
}
