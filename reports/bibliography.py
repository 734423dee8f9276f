"""BibTeX of what a report rests on: the instrument's own sources, and the papers of the methods that it shows."""

from __future__ import annotations

from collections.abc import Iterable

from bench.version import __version__

_ALWAYS = (
    "@software{waterline,\n  title = {Waterline: reproducible efficiency benchmarks for neural networks},\n"
    f"  version = {{{__version__}}},\n}}",
    "@article{lavin2024efficiency,\n  title = {On the Efficiency of Convolutional Neural Networks},\n"
    "  author = {Lavin, Andrew},\n  journal = {arXiv preprint arXiv:2404.03617},\n  year = {2024},\n}",
    "@article{williams2009roofline,\n  title = {Roofline: An Insightful Visual Performance Model for Multicore Architectures},\n"
    "  author = {Williams, Samuel and Waterman, Andrew and Patterson, David},\n  journal = {Communications of the ACM},\n"
    "  volume = {52},\n  number = {4},\n  year = {2009},\n}",
)

_METHODS = {
    "tome": "@inproceedings{bolya2023tome,\n  title = {Token Merging: Your {ViT} but Faster},\n"
    "  author = {Bolya, Daniel and Fu, Cheng-Yang and Dai, Xiaoliang and Zhang, Peizhao and Feichtenhofer, Christoph and "
    "Hoffman, Judy},\n  booktitle = {International Conference on Learning Representations},\n  year = {2023},\n}",
    "evit": "@inproceedings{liang2022evit,\n  title = {Not All Patches are What You Need: Expediting Vision Transformers via "
    "Token Reorganizations},\n  author = {Liang, Youwei and Ge, Chongjian and Tong, Zhan and Song, Yibing and Wang, Jue and "
    "Xie, Pengtao},\n  booktitle = {International Conference on Learning Representations},\n  year = {2022},\n}",
    "diffrate": "@inproceedings{chen2023diffrate,\n  title = {{DiffRate}: Differentiable Compression Rate for Efficient "
    "Vision Transformers},\n  author = {Chen, Mengzhao and Shao, Wenqi and Xu, Peng and Lin, Mingbao and Zhang, Kaipeng and "
    "Chao, Fei and Ji, Rongrong and Qiao, Yu and Luo, Ping},\n  booktitle = {International Conference on Computer Vision},\n"
    "  year = {2023},\n}",
}


def entries_for(methods: Iterable[str]) -> list[str]:
    """BibTeX entries: the instrument and its sources, then those of `methods` that are known here."""
    return [*_ALWAYS, *(_METHODS[name] for name in sorted(set(methods)) if name in _METHODS)]
