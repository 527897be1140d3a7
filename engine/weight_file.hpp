// The quantised weights on disk: a header of 4096 bytes, then the arena as it stands in memory, each with its CRC-32C.
#pragma once

#include <array>
#include <string>

#include "model.hpp"

namespace twinrank {

constexpr uint32_t kLayoutVersion = 1;  // raised whenever the arena's order or the packing of a tensor changes
constexpr size_t kHeaderBytes = 4096;

// The SHA-256 of whatever names the source: its weights' fingerprint.
using Key = std::array<uint8_t, 32>;

// Writes beside the target, makes it durable and renames: a reader sees the old file or the new one, never a part.
// Throws std::runtime_error where that fails; then nothing is left behind.
void write_weights(const std::string& path, const Model& model, const Key& key);

// Maps the file and verifies everything; throws std::runtime_error saying what is wrong with it.
Model read_weights(const std::string& path, const Shape& shape, Precision precision, const Key& key);

// What read_weights verifies, over bytes in memory; returns the payload's size. For the fuzz target.
size_t verify_header(const uint8_t* bytes, size_t file_bytes, const Shape& shape, Precision precision, const Key& key);
void verify_payload(const uint8_t* header, const uint8_t* payload, size_t payload_bytes);

uint32_t crc32c(const uint8_t* bytes, size_t count, uint32_t before = 0);

}  // namespace twinrank
