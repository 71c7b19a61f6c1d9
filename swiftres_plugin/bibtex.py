"""
@misc{SwiftresThesis2023,
  title = {Swiftalign and swiftres: alignment and refinement of single particles by vector search},
  author = {Universidad Politecnica de Madrid},
  journal = {Thesis},
  year = {2023}
}

@article{Johnson2021,
  title = {Billion-Scale Similarity Search with {GPUs}},
  author = {Johnson, Jeff and Douze, Matthijs and Jegou, Herve},
  journal = {IEEE Transactions on Big Data},
  volume = {7},
  number = {3},
  pages = {535--547},
  year = {2021},
  doi = {https://doi.org/10.1109/TBDATA.2019.2921572}
}
"""
