// Vectors of numbers in the types of GCC and Clang, so that one text serves every processor.

#pragma once

#include <cstdint>
#include <cstring>

namespace {

#if defined(__AVX512F__)
constexpr int kBytes = 64;
#elif defined(__AVX__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif

constexpr int kWide = 128 / kBytes;  // vectors side by side, which share the loads and stores of the sums over channels

template <class F>
struct Of;

template <>
struct Of<float> {
  typedef float Vector __attribute__((vector_size(kBytes)));
  typedef int32_t Bits __attribute__((vector_size(kBytes)));
  static constexpr int kMantissa = 23;
  static constexpr float kLeast = -126, kMost = 128, kTiny = 1e-25f;
  // 2^f on [-1/2, 1/2], least relative error (2e-9) with p(0) = 1.
  static constexpr float kPowers[] = {1.53533667e-4f, 1.33988798e-3f, 9.61843738e-3f, 5.55033245e-2f,
                                      2.40226479e-1f, 6.93147203e-1f, 1.0f};
};

template <>
struct Of<double> {
  typedef double Vector __attribute__((vector_size(kBytes)));
  typedef int64_t Bits __attribute__((vector_size(kBytes)));
  static constexpr int kMantissa = 52;
  static constexpr double kLeast = -1022, kMost = 1024, kTiny = 0;
  // Taylor's: (ln 2)^k / k!, to k = 13 (relative error 4e-18).
  static constexpr double kPowers[] = {
      1.3691488853904124e-12, 2.5678435993488196e-11, 4.4455382718708101e-10, 7.0549116208011209e-09,
      1.0178086009239696e-07, 1.3215486790144305e-06, 1.5252733804059838e-05, 0.00015403530393381606,
      0.0013333558146428441, 0.0096181291076284769, 0.055504108664821576, 0.24022650695910069,
      0.69314718055994529, 1.0};
};

template <class F>
using Vec = typename Of<F>::Vector;

template <class F>
constexpr int kLanes = kBytes / sizeof(F);

// 2^x; 0 below the normal numbers, infinity above them, NaN for NaN.
template <class F>
inline Vec<F> power_of_two(Vec<F> x) {
  using Bits = typename Of<F>::Bits;
  constexpr int mantissa = Of<F>::kMantissa;
  const Vec<F> most = Of<F>::kMost + Vec<F>{}, least = Of<F>::kLeast + Vec<F>{};
  x = most < x ? most : x;
  // Adding 1.5 * 2^mantissa rounds to a whole number, which then stands in the lowest bits.
  const F round = F(int64_t(3) << (mantissa - 1));
  const Vec<F> rounded = x + round;
  const Vec<F> fraction = x - (rounded - round);
  Vec<F> power = Of<F>::kPowers[0] + Vec<F>{};
  for (int k = 1; k < int(sizeof(Of<F>::kPowers) / sizeof(F)); ++k) power = power * fraction + Of<F>::kPowers[k];
  const Bits bits = (Bits)power + ((Bits)rounded << mantissa);
  return (Vec<F>)(bits & ~(Bits)(x < least));
}

template <class F>
inline Vec<F> load(const F* from) {
  Vec<F> value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <class F>
inline void store(F* to, Vec<F> value) {
  std::memcpy(to, &value, sizeof value);
}

// kWide vectors of which the first `count` numbers exist.
template <class F>
inline void load_block(Vec<F>* to, const F* from, int count) {
  if (count == kWide * kLanes<F>) {
    for (int v = 0; v < kWide; ++v) to[v] = load(from + v * kLanes<F>);
  } else {
    for (int v = 0; v < kWide; ++v) to[v] = Vec<F>{};
    std::memcpy(to, from, count * sizeof(F));
  }
}

template <class F>
inline void store_block(F* to, const Vec<F>* from, int count) {
  std::memcpy(to, from, (count == kWide * kLanes<F> ? kWide * kLanes<F> : count) * sizeof(F));
}

template <class F>
inline F sum(Vec<F> value) {
  F total = 0;
  for (int lane = 0; lane < kLanes<F>; ++lane) total += value[lane];
  return total;
}

}  // namespace
