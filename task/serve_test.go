package task

import (
	"bytes"
	"encoding/binary"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/data"
)

// silence is a FLAC file of frames of 65,535 zeros in 14 bytes.
func silence(frames int) []byte {
	crc := func(b []byte, poly, width uint) (c uint) {
		for _, x := range b {
			for bit := 7; bit >= 0; bit-- {
				top := c>>(width-1) ^ uint(x)>>bit&1
				c = (c << 1) & (1<<width - 1)
				c ^= top * poly
			}
		}
		return c
	}
	const block = 65535
	b := []byte("fLaC\x80\x00\x00\x22\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00")
	b = binary.BigEndian.AppendUint64(b, 16000<<44|15<<36) // Hz, one channel of 16 bits, and how many samples is not said
	b = append(b, make([]byte, 16)...)
	f := binary.BigEndian.AppendUint16([]byte{0xff, 0xf8, 0x70, 0x08, 0}, block-1)
	f = append(f, byte(crc(f, 7, 8)), 0, 0, 0) // one constant
	f = binary.BigEndian.AppendUint16(f, uint16(crc(f, 0x8005, 16)))
	return append(b, bytes.Repeat(f, frames)...)
}

// A sound that a client sends takes memory in proportion to its size: FLAC of silence is
// refused where it would be more.
func TestSoundIsNotMoreThanItsSize(t *testing.T) {
	s, err := (&Sound{Name: "short", Data: silence(soundSamples / 65535)}).Read()
	if err != nil || len(s.Samples) != soundSamples/65535*65535 {
		t.Fatalf("as much as may be: %v", err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err = (&Sound{Name: "long", Data: silence(4000)}).Read()
	runtime.ReadMemStats(&after)
	var input *data.InputError
	if !errors.As(err, &input) || !strings.HasPrefix(err.Error(), "long: has more than 16777216 samples") {
		t.Errorf("%v", err)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 1<<30 {
		t.Errorf("refusing it took %d bytes", took)
	}
}
