// The selective scan in one pass over its inputs; chunked_scan.py says what it computes, and is its twin in torch.
//
// One exponential for each state element is what a scan can not avoid, so everything else stays in registers and in
// the first cache: the decays and states of a chunk never reach memory. A task is one image and kGroup channels; its
// sums over channels go to a row of their own, so that no result depends on the number of threads.
//
// B images, L steps, D channels, N states. Vectors run over channels, which stand innermost everywhere.
// compiled_scan.py gives REORDER_CHUNK, the steps of a chunk. No header of torch is needed: the build takes seconds.

#include "vectors.h"

#include <vector>

namespace {

constexpr int kGroup = 128;  // channels of a task
constexpr int kSteps = REORDER_CHUNK;

template <class F>
struct Rows {  // of one [B, L, *] tensor whose last dimension is contiguous
  const F* data;
  int64_t image, step;
  const F* at(int64_t b, int64_t t) const { return data + b * image + t * step; }
};

struct Sizes {
  int64_t B, L, D, N;
  int64_t chunks() const { return (L + kSteps - 1) / kSteps; }
  int64_t groups() const { return (D + kGroup - 1) / kGroup; }
};

template <class F>
void forward_task(Sizes s, Rows<F> u, Rows<F> delta, const F* rate, Rows<F> B, Rows<F> C, F* y, F* start, int64_t b,
                  int64_t first, int64_t last) {
  constexpr int width = kWide * kLanes<F>;
  std::vector<Vec<F>> rates(s.N * kWide), states(s.N * kWide);
  for (int64_t d = first; d < last; d += width) {
    const int count = int(last - d < width ? last - d : width);
    for (int64_t n = 0; n < s.N; ++n) {
      load_block<F>(&rates[n * kWide], rate + n * s.D + d, count);
      for (int v = 0; v < kWide; ++v) states[n * kWide + v] = Vec<F>{};
    }
    for (int64_t t = 0; t < s.L; ++t) {
      if (t % kSteps == 0) {
        F* to = start + ((t / kSteps) * s.B + b) * s.N * s.D + d;
        for (int64_t n = 0; n < s.N; ++n) store_block<F>(to + n * s.D, &states[n * kWide], count);
      }
      Vec<F> step[kWide], input[kWide], output[kWide] = {};
      load_block<F>(step, delta.at(b, t) + d, count);
      load_block<F>(input, u.at(b, t) + d, count);
      for (int v = 0; v < kWide; ++v) input[v] *= step[v];
      const F *B_N = B.at(b, t), *C_N = C.at(b, t);
      for (int64_t n = 0; n < s.N; ++n) {
        for (int v = 0; v < kWide; ++v) {
          Vec<F>& h = states[n * kWide + v];
          h = power_of_two<F>(step[v] * rates[n * kWide + v]) * h + input[v] * B_N[n];
          output[v] += h * C_N[n];
        }
      }
      store_block<F>(y + (b * s.L + t) * s.D + d, output, count);
    }
  }
}

// What a task keeps between its chunks and blocks of channels.
template <class F>
struct Kept {
  std::vector<Vec<F>> carry, dA;  // [block, N, kWide]
  std::vector<Vec<F>> dB, dC;     // [kSteps, N], one sum a lane
  Kept(int64_t blocks, int64_t N)
      : carry(blocks * N * kWide), dA(blocks * N * kWide), dB(kSteps * N), dC(kSteps * N) {}
};

template <class F>
struct Gradients {
  F *u, *delta, *A, *B, *C;  // [B, L, D] twice, [B, N, D], [groups, B, L, N] twice
};

// One chunk of `steps` steps from t0 on, for `count` channels from d on.
template <class F>
inline void backward_block(Sizes s, Rows<F> dy, Rows<F> u, Rows<F> delta, const F* A, const F* rate, Rows<F> B,
                           Rows<F> C, const F* start, Gradients<F> to, Kept<F>& kept, int64_t b, int64_t t0, int steps,
                           int64_t d, int count, int64_t block) {
  using V = Vec<F>;
  V step[kSteps][kWide], input[kSteps][kWide], out[kSteps][kWide], u_t[kSteps][kWide];
  V dinput[kSteps][kWide] = {}, dstep[kSteps][kWide] = {};
  for (int t = 0; t < steps; ++t) {
    load_block<F>(step[t], delta.at(b, t0 + t) + d, count);
    load_block<F>(u_t[t], u.at(b, t0 + t) + d, count);
    load_block<F>(out[t], dy.at(b, t0 + t) + d, count);
    for (int v = 0; v < kWide; ++v) {
      input[t][v] = step[t][v] * u_t[t][v];
      out[t][v] += Of<F>::kTiny;
    }
  }
  for (int64_t n = 0; n < s.N; ++n) {
    V A_n[kWide], rate_n[kWide], decay[kSteps][kWide], state[kSteps + 1][kWide];
    load_block<F>(A_n, A + n * s.D + d, count);
    load_block<F>(rate_n, rate + n * s.D + d, count);
    load_block<F>(state[0], start + n * s.D + d, count);
    for (int t = 0; t < steps; ++t) {
      const F B_tn = B.at(b, t0 + t)[n];
      for (int v = 0; v < kWide; ++v) {
        decay[t][v] = power_of_two<F>(step[t][v] * rate_n[v]);
        state[t + 1][v] = decay[t][v] * state[t][v] + input[t][v] * B_tn;
      }
    }
    V* carry = &kept.carry[(block * s.N + n) * kWide];
    V* dA = &kept.dA[(block * s.N + n) * kWide];
    V g[kWide], dA_n[kWide];
    for (int v = 0; v < kWide; ++v) g[v] = carry[v], dA_n[v] = dA[v];
    for (int t = steps - 1; t >= 0; --t) {
      const F B_tn = B.at(b, t0 + t)[n], C_tn = C.at(b, t0 + t)[n];
      V dB = {}, dC = {};
      for (int v = 0; v < kWide; ++v) {
        g[v] += out[t][v] * C_tn;
        dC += out[t][v] * state[t + 1][v];
        dB += input[t][v] * g[v];
        dinput[t][v] += g[v] * B_tn;
        g[v] *= decay[t][v];
        const V dexponent = g[v] * state[t][v];
        dA_n[v] += dexponent * step[t][v];
        dstep[t][v] += dexponent * A_n[v];
      }
      kept.dB[t * s.N + n] += dB;
      kept.dC[t * s.N + n] += dC;
    }
    for (int v = 0; v < kWide; ++v) carry[v] = g[v], dA[v] = dA_n[v];
  }
  for (int t = 0; t < steps; ++t) {
    for (int v = 0; v < kWide; ++v) {
      dstep[t][v] += dinput[t][v] * u_t[t][v];
      dinput[t][v] *= step[t][v];
    }
    const int64_t row = (b * s.L + t0 + t) * s.D + d;
    store_block<F>(to.u + row, dinput[t], count);
    store_block<F>(to.delta + row, dstep[t], count);
  }
}

template <class F>
void backward_task(Sizes s, Rows<F> dy, Rows<F> u, Rows<F> delta, const F* A, const F* rate, Rows<F> B, Rows<F> C,
                   const F* start, Gradients<F> to, int64_t b, int64_t group) {
  constexpr int width = kWide * kLanes<F>;
  const int64_t first = group * kGroup, last = first + kGroup < s.D ? first + kGroup : s.D;
  const int64_t blocks = (last - first + width - 1) / width;
  Kept<F> kept(blocks, s.N);
  for (int64_t k = s.chunks() - 1; k >= 0; --k) {
    const int64_t t0 = k * kSteps;
    const int steps = int(s.L - t0 < kSteps ? s.L - t0 : kSteps);
    for (auto& value : kept.dB) value = Vec<F>{};
    for (auto& value : kept.dC) value = Vec<F>{};
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t d = first + block * width;
      const int count = int(last - d < width ? last - d : width);
      const F* before = start + (k * s.B + b) * s.N * s.D + d;
      if (steps == kSteps)  // a constant, so that the loops over steps are unrolled
        backward_block<F>(s, dy, u, delta, A, rate, B, C, before - d, to, kept, b, t0, kSteps, d, count, block);
      else
        backward_block<F>(s, dy, u, delta, A, rate, B, C, before - d, to, kept, b, t0, steps, d, count, block);
    }
    const int64_t row = ((group * s.B + b) * s.L + t0) * s.N;
    for (int64_t i = 0; i < steps * s.N; ++i) {
      to.B[row + i] = sum<F>(kept.dB[i]);
      to.C[row + i] = sum<F>(kept.dC[i]);
    }
  }
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t d = first + block * width;
    const int count = int(last - d < width ? last - d : width);
    for (int64_t n = 0; n < s.N; ++n)
      store_block<F>(to.A + (b * s.N + n) * s.D + d, &kept.dA[(block * s.N + n) * kWide], count);
  }
}

template <class F>
void forward(const int64_t* n, const F* u, const F* delta, const F* rate, const F* B, const F* C, F* y, F* start) {
  const Sizes s{n[0], n[1], n[2], n[3]};
  const int threads = int(n[4]);
  const int64_t* at = n + 5;
  const Rows<F> u_(Rows<F>{u, at[0], at[1]}), delta_(Rows<F>{delta, at[2], at[3]}), B_(Rows<F>{B, at[4], at[5]}),
      C_(Rows<F>{C, at[6], at[7]});
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (int64_t task = 0; task < s.B * s.groups(); ++task) {
    const int64_t first = task % s.groups() * kGroup, last = first + kGroup < s.D ? first + kGroup : s.D;
    forward_task<F>(s, u_, delta_, rate, B_, C_, y, start, task / s.groups(), first, last);
  }
}

template <class F>
void backward(const int64_t* n, const F* dy, const F* u, const F* delta, const F* A, const F* rate, const F* B,
              const F* C, const F* start, F* du, F* ddelta, F* dA, F* dB, F* dC) {
  const Sizes s{n[0], n[1], n[2], n[3]};
  const int threads = int(n[4]);
  const int64_t* at = n + 5;
  const Rows<F> u_(Rows<F>{u, at[0], at[1]}), delta_(Rows<F>{delta, at[2], at[3]}), B_(Rows<F>{B, at[4], at[5]}),
      C_(Rows<F>{C, at[6], at[7]}), dy_(Rows<F>{dy, at[8], at[9]});
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (int64_t task = 0; task < s.B * s.groups(); ++task)
    backward_task<F>(s, dy_, u_, delta_, A, rate, B_, C_, start, Gradients<F>{du, ddelta, dA, dB, dC},
                     task / s.groups(), task % s.groups());
}

}  // namespace

// `n` holds B, L, D, N, the number of threads, then the strides of image and step of u, delta, B, C and dy.
#define REORDER_SCAN(NAME, F)                                                                                       \
  extern "C" void scan_forward_##NAME(const int64_t* n, const F* u, const F* delta, const F* rate, const F* B,      \
                                      const F* C, F* y, F* start) {                                                 \
    forward<F>(n, u, delta, rate, B, C, y, start);                                                                  \
  }                                                                                                                 \
  extern "C" void scan_backward_##NAME(const int64_t* n, const F* dy, const F* u, const F* delta, const F* A,       \
                                       const F* rate, const F* B, const F* C, const F* start, F* du, F* ddelta,     \
                                       F* dA, F* dB, F* dC) {                                                       \
    backward<F>(n, dy, u, delta, A, rate, B, C, start, du, ddelta, dA, dB, dC);                                     \
  }

REORDER_SCAN(float32, float)
REORDER_SCAN(float64, double)
