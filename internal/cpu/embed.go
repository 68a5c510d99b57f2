package cpu

import (
	"github.com/carousel-ml/carousel/internal/device"
	"github.com/carousel-ml/carousel/internal/par"
)

// Embed computes Y[n] = Table[IDs[n]]. It panics if an id is outside [0,V).
func (b *Backend) Embed(s *device.EmbedSpec) {
	par.Each(s.IDs.N, rowGrain(s.D), b, s, func(_ *Backend, s *device.EmbedSpec, lo, hi int) {
		for n := lo; n < hi; n++ {
			id := int(s.IDs.Host[n])
			copy(s.Y.Host[n*s.D:(n+1)*s.D], s.Table.Host[:s.V*s.D][id*s.D:(id+1)*s.D])
		}
	})
}

// embedGradCols is the narrowest column strip worth a worker: two cache lines.
const embedGradCols = 32

// EmbedGrad computes DTable[IDs[n]] += DY[n], in ascending n. Work is divided by
// columns, not ids, so a few very frequent ids do not unbalance it.
func (b *Backend) EmbedGrad(s *device.EmbedSpec) {
	par.Each(s.D, max(embedGradCols, rowGrain(s.IDs.N)), b, s, func(b *Backend, s *device.EmbedSpec, lo, hi int) {
		for n, id := range s.IDs.Host {
			if id == s.Padding {
				continue
			}
			row := s.DTable.Host[int(id)*s.D+lo : int(id)*s.D+hi]
			b.set.Add(row, row, s.DY.Host[n*s.D+lo:n*s.D+hi])
		}
	})
}
