// Writes and reads the file of quantised weights; trusts nothing in it that it has not verified.
#include "weight_file.hpp"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <vector>

#ifdef TWINRANK_X86
#include <nmmintrin.h>
#elif defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#endif

namespace twinrank {
namespace {

constexpr char kMagic[8] = {'T', 'W', 'I', 'N', 'R', 'A', 'N', 'K'};
constexpr uint32_t kByteOrder = 0x01020304;

// Fixed sizes without padding, in this machine's byte order, which `byte_order` proves.
struct Header {
  char magic[8];
  uint32_t byte_order, layout_version, precision;
  uint32_t layers, width, heads, intermediate, vocabulary, positions, types, position_offset, relative_buckets, activation;
  float norm_epsilon;
  uint8_t key[32];
  uint64_t payload_bytes;
  uint32_t payload_crc;
  uint32_t header_crc;  // of everything before it
};
static_assert(sizeof(Header) == 8 + 14 * 4 + 32 + 8 + 8, "the header has no padding");

Header header_for(const Shape& shape, Precision precision, const Key& key) {
  Header header{};
  std::memcpy(header.magic, kMagic, 8);
  header.byte_order = kByteOrder;
  header.layout_version = kLayoutVersion;
  header.precision = uint32_t(precision);
  header.layers = shape.layers;
  header.width = shape.width;
  header.heads = shape.heads;
  header.intermediate = shape.intermediate;
  header.vocabulary = shape.vocabulary;
  header.positions = shape.positions;
  header.types = shape.types;
  header.position_offset = shape.position_offset;
  header.relative_buckets = shape.relative_buckets;
  header.activation = uint32_t(shape.activation);
  header.norm_epsilon = shape.norm_epsilon;
  std::memcpy(header.key, key.data(), key.size());
  header.payload_bytes = Model::arena_bytes(shape, precision);
  return header;
}

[[noreturn]] void refuse(const std::string& what) { throw std::runtime_error(what); }

class Descriptor {
 public:
  explicit Descriptor(int number) : number(number) {}
  ~Descriptor() { close_now(); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int close_now() {
    const int result = number >= 0 ? close(number) : 0;
    number = -1;
    return result;
  }
  int number;
};

void write_all(int descriptor, const uint8_t* bytes, size_t count) {
  while (count > 0) {
    const ssize_t written = write(descriptor, bytes, std::min<size_t>(count, size_t(1) << 30));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) refuse(std::string("cannot write: ") + std::strerror(errno));
    bytes += written;
    count -= size_t(written);
  }
}

#ifdef TWINRANK_X86
__attribute__((target("sse4.2"))) uint32_t crc32c_hardware(const uint8_t* bytes, size_t count, uint32_t crc) {
  uint64_t state = crc;
  for (; count >= 8; count -= 8, bytes += 8) {
    uint64_t word;
    std::memcpy(&word, bytes, 8);
    state = _mm_crc32_u64(state, word);
  }
  for (; count > 0; --count) state = _mm_crc32_u8(uint32_t(state), *bytes++);
  return uint32_t(state);
}
#endif

// Eight tables, eight bytes a step; for CPUs without the instruction.
struct CrcTables {
  uint32_t table[8][256];
  CrcTables() {
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t crc = i;
      for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0u);
      table[0][i] = crc;
    }
    for (uint32_t i = 0; i < 256; ++i)
      for (int k = 1; k < 8; ++k) table[k][i] = table[k - 1][i] >> 8 ^ table[0][table[k - 1][i] & 255];
  }
};

uint32_t crc32c_tables(const uint8_t* bytes, size_t count, uint32_t crc) {
  static const CrcTables tables;
  for (; count >= 8; count -= 8, bytes += 8) {
    const uint32_t low = crc ^ (bytes[0] | uint32_t(bytes[1]) << 8 | uint32_t(bytes[2]) << 16 | uint32_t(bytes[3]) << 24);
    crc = tables.table[7][low & 255] ^ tables.table[6][low >> 8 & 255] ^ tables.table[5][low >> 16 & 255] ^
          tables.table[4][low >> 24] ^ tables.table[3][bytes[4]] ^ tables.table[2][bytes[5]] ^ tables.table[1][bytes[6]] ^
          tables.table[0][bytes[7]];
  }
  for (; count > 0; --count) crc = crc >> 8 ^ tables.table[0][(crc ^ *bytes++) & 255];
  return crc;
}

}  // namespace

uint32_t crc32c(const uint8_t* bytes, size_t count, uint32_t before) {
  const uint32_t start = ~before;
#ifdef TWINRANK_X86
  if (__builtin_cpu_supports("sse4.2")) return ~crc32c_hardware(bytes, count, start);
#endif
  return ~crc32c_tables(bytes, count, start);
}

size_t verify_header(const uint8_t* bytes, size_t file_bytes, const Shape& shape, Precision precision, const Key& key) {
  if (file_bytes < kHeaderBytes) refuse("the file is shorter than its header");
  Header header;
  std::memcpy(&header, bytes, sizeof header);
  if (std::memcmp(header.magic, kMagic, 8) != 0) refuse("the file is not one of twinrank's");
  if (header.byte_order != kByteOrder) refuse("the file is from a machine with another byte order");
  if (header.layout_version != kLayoutVersion) refuse("the file has layout " + std::to_string(header.layout_version));
  if (crc32c(bytes, offsetof(Header, header_crc)) != header.header_crc) refuse("the header's checksum is wrong");
  for (size_t i = sizeof header; i < kHeaderBytes; ++i)
    if (bytes[i] != 0) refuse("the header is followed by something unknown");
  const Header expected = header_for(shape, precision, key);
  if (std::memcmp(&header, &expected, offsetof(Header, payload_crc)) != 0)
    refuse("the file is of another network, precision or source");
  if (file_bytes - kHeaderBytes != header.payload_bytes) refuse("the file is not as long as its header says");
  return header.payload_bytes;
}

void verify_payload(const uint8_t* header_bytes, const uint8_t* payload, size_t payload_bytes) {
  Header header;
  std::memcpy(&header, header_bytes, sizeof header);
  if (crc32c(payload, payload_bytes) != header.payload_crc) refuse("the weights' checksum is wrong");
}

void write_weights(const std::string& path, const Model& model, const Key& key) {
  Header header = header_for(model.shape, model.precision, key);
  header.payload_crc = crc32c(model.arena->data, header.payload_bytes);
  std::vector<uint8_t> page(kHeaderBytes, 0);
  std::memcpy(page.data(), &header, sizeof header);
  header.header_crc = crc32c(page.data(), offsetof(Header, header_crc));
  std::memcpy(page.data(), &header, sizeof header);

  std::string temporary = path + ".XXXXXX";
  Descriptor file(mkstemp(&temporary[0]));
  if (file.number < 0) refuse("cannot create " + temporary + ": " + std::strerror(errno));
  try {
    write_all(file.number, page.data(), page.size());
    write_all(file.number, model.arena->data, header.payload_bytes);
    if (fsync(file.number) != 0 || file.close_now() != 0) refuse(std::string("cannot make it durable: ") + std::strerror(errno));
    if (rename(temporary.c_str(), path.c_str()) != 0) refuse("cannot rename to " + path + ": " + std::strerror(errno));
  } catch (...) {
    unlink(temporary.c_str());
    throw;
  }
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
  Descriptor directory(open(folder.c_str(), O_RDONLY));
  if (directory.number >= 0) (void)fsync(directory.number);  // the name, too; a lost cache is only made again
}

Model read_weights(const std::string& path, const Shape& shape, Precision precision, const Key& key) {
  shape.check();
  Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.number < 0) refuse("cannot open " + path + ": " + std::strerror(errno));
  struct stat status;
  if (fstat(file.number, &status) != 0 || !S_ISREG(status.st_mode)) refuse(path + " is not a file");
  const size_t file_bytes = size_t(status.st_size);
  uint8_t page[kHeaderBytes];
  if (file_bytes < kHeaderBytes || pread(file.number, page, kHeaderBytes, 0) != ssize_t(kHeaderBytes))
    refuse("the file is shorter than its header");
  const size_t payload_bytes = verify_header(page, file_bytes, shape, precision, key);
  auto arena = Arena::map(file.number, file_bytes, kHeaderBytes);
  verify_payload(page, arena->data, payload_bytes);
  return Model::over(shape, precision, std::move(arena));
}

}  // namespace twinrank
